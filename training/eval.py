"""python -m training.eval --config RECIPE --pretrained CKPT: top-1 and top-5 accuracy on the whole val split.

Where several labels may apply to an image (labels: multi), also the average precision of each label.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.config import parse
from training.errors import ConfigError, reporting_errors
from training.run.distributed import device


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, _ = parse(argv, prog="python -m training.eval", description=__doc__)
    if config.pretrained is None:
        raise ConfigError("--pretrained FILE.ckpt is missing: which checkpoint should be evaluated?")
    process = device.init_process(config.device_target, config.device_id)
    if process.is_main:
        print(process.description)
    from training.data.pipeline import open_split
    from training.run.checkpoints.trained import Trained
    from training.run.evaluation import evaluate_images, evaluate_labels

    trained = Trained.open(config, config.pretrained)
    images = open_split(trained.config, "val")
    trained.check_classes(images)
    if trained.config.labels == "multi":
        found = evaluate_labels(trained.network(deploy=False), images, trained.config)
        print(f"images: {len(images)}\nTop1 acc: {found.hits(1):.4f}\nTop5 acc: {found.hits(5):.4f}")
        print(f"mean average precision: {found.mean_average_precision:.4f}")
        for name, precision in found.average_precisions(images.classes).items():
            print(f"  {name}: {precision:.4f}")
        return 0
    count, top1, top5 = evaluate_images(trained.network(deploy=False), images, trained.config, process)
    if process.is_main:
        print(f"images: {count}\nTop1 acc: {top1:.4f}\nTop5 acc: {top5:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
