"""A fitted network -> a checked bundle. Only `training.own.command` may import it."""
