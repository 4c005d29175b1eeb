"""Recipe and command line -> the configuration of a run. Everything in training but `errors` may enter."""

from training.config.command_line import TrainConfig, build, effective, parse

__all__ = ["TrainConfig", "build", "effective", "parse"]
