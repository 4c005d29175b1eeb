"""What was learnt -> a bundle that is checked. Only `training.own.command` may import it."""
