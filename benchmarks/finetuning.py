"""Top-1 of a few hundred photos: fine-tuned from a bundle, only its classifier trained, and from scratch.

python -m benchmarks.finetuning --photos FOLDER --bundle BUNDLE [--size 96] [--epochs N] [--seeds 1 2 3] [--only KIND]

FOLDER holds <class>/*.jpg. Each seed draws two thirds of each class to train on and judges by the rest; the top-1 is
that of the last epoch, since the best one of several would be chosen by the photos that judge it. All kinds make the
same number of steps with training/recipes/finetune.yaml; the CPU time is that of the whole command, in which other work
on the machine hardly shows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from models.preprocess import images_in
from models.store import open_bundle

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "training" / "recipes" / "finetune.yaml"
TRAIN_SHARE = 2 / 3
KINDS = ("fine-tuned", "classifier only", "scratch")


def split(photos: Path, out: Path, seed: int) -> None:
    """Link the photos of each class into `out`/train/<class> and `out`/val/<class>."""
    for folder in sorted(path for path in photos.iterdir() if path.is_dir()):
        files = sorted(images_in(folder))
        random.Random(f"{seed} {folder.name}").shuffle(files)
        count = round(TRAIN_SHARE * len(files))
        for part, chosen in (("train", files[:count]), ("val", files[count:])):
            (out / part / folder.name).mkdir(parents=True)
            for file in chosen:
                os.link(file, out / part / folder.name / file.name)


def flags_of(kind: str, bundle: Path) -> list[str]:
    """What makes a run of this kind."""
    if kind != "scratch":
        return ["--pretrained", str(bundle), *(["--freeze", "5"] if kind == "classifier only" else [])]
    manifest = open_bundle(bundle).manifest
    spec = manifest.preprocess
    # Twice the rate of a fine-tuned run's classifier, for all weights.
    keys = {"arch": manifest.network.variant, "backbone_lr": 1, "base_lr": 2e-3, "stem_init": "whitened"}
    keys |= {"mean": list(spec.mean), "std": list(spec.std), "crop_pct": spec.input_size / spec.resize_size}
    return [word for key, value in keys.items() for word in (f"--{key}", str(value))]


def run(data: Path, out: Path, flags: Sequence[str]) -> tuple[float, float]:
    """-> top-1 of the last epoch, and seconds of CPU time."""
    command = [sys.executable, "-m", "training.train", "--config", RECIPE, "--data_url", data, "--save_dir", out]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*map(str, command), "--name", "run", *flags], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = (out / "run" / "log.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["val_top1"]), cpu_s


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--size", default="96", help="pixels")
    parser.add_argument("--epochs", default="25")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS)
    args = parser.parse_args(argv)
    found: dict[str, list[float]] = {kind: [] for kind in args.only}
    for seed in args.seeds:
        for kind in args.only:
            with TemporaryDirectory(dir=args.photos.parent) as folder:  # beside the photos: links cross no file system
                split(args.photos, Path(folder, "data"), seed)
                keys = ["--image_size", args.size, "--epochs", args.epochs, "--seed", str(seed)]
                flags = [*keys, *flags_of(kind, args.bundle)]
                top1, cpu_s = run(Path(folder, "data"), Path(folder, "runs"), flags)
            found[kind].append(top1)
            print(f"seed {seed}, {kind}: {top1:.1%}, {cpu_s:.0f} s of CPU time", flush=True)
    for kind, tops in found.items():
        print(f"{kind}: {mean(tops):.1%} ({', '.join(f'{top:.1%}' for top in tops)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
