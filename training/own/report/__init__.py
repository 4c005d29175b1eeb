"""The command's output, line by line, and report.html. Only `training.own.command` may import it."""
