"""A checkpoint to evaluate or to export.

1. settings that neither the recipe nor a flag gives come from the checkpoint itself;
2. its classes are compared by name with those of the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.config import TrainConfig, build
from training.data.images import Images
from training.errors import CheckpointError
from training.network import repvgg
from training.run.checkpoints import about, checkpoint
from training.run.checkpoints.about import About
from training.run.checkpoints.checkpoint import Weights
from weights.variants import VARIANTS


@dataclass(frozen=True)
class Trained:
    """`config` is the configuration to evaluate with; `about` is None for a checkpoint of an older version."""

    path: Path
    weights: Weights
    about: About | None
    config: TrainConfig

    @staticmethod
    def open(config: TrainConfig, path: Path) -> Trained:
        """Raises CheckpointError, and ConfigError if the recipe and the checkpoint's keys contradict each other."""
        saved = checkpoint.read(path)
        found = about.parse(saved, path)
        keys = about.inherited(config, found, path)
        return Trained(path, checkpoint.network_weights(saved), found, build(keys, source=f"the recipe of {path}"))

    def check_classes(self, images: Images) -> None:
        """Raises CheckpointError unless the images have the checkpoint's classes."""
        about.check_classes(
            self.about,
            images.classes,
            source=self.path,
            root=images.root,
            advice="its answers mean its own classes: give images of these, in folders with the same names",
        )

    def network(self, *, deploy: bool) -> repvgg.RepVGG:
        """The network, fused with `deploy`. Raises CheckpointError."""
        if "classifier.bias" not in self.weights:
            raise CheckpointError(f"{self.path} has no classifier")
        classes = self.config.num_classes or len(self.weights["classifier.bias"])
        variant = VARIANTS[self.config.arch]
        return checkpoint.build_network(self.weights, variant, classes, deploy=deploy, source=self.path)
