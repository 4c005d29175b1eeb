"""Recipe and command line -> the configuration of a run. All rooms above `network` may import it."""

from training.config.command_line import TrainConfig, build, effective, parse

__all__ = ["TrainConfig", "build", "effective", "parse"]
