"""What the command says, line by line, and report.html. Only `training.own.command` may import it."""
