"""Top-1 of a few hundred photos: a new classifier alone, fine-tuned from a bundle, and from scratch.

python -m benchmarks.finetuning --photos FOLDER --bundle BUNDLE [--size 96] [--epochs N] [--seeds 1 2 3] [--only KIND]
    [--judge FOLDER] [--per_class N]

FOLDER holds <class>/*.jpg. Each seed draws two thirds of each class to train on and judges by the rest, or with
`--judge` draws N or all of each class, and judges by all photos of another folder like that. `head` and
`fine-tuned` are what training.start does: logistic regression on the bundle's features, and the whole network, starting
with that classifier. The top-1 is that of the last epoch, since the best one of several would be chosen by the photos
that judge it. Runs have the same number of steps, with training/recipes/finetune.yaml;
the CPU time is that of the whole command, in which other work on the machine hardly shows.
benchmarks/transfer_comparison.py takes the same photos.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.splits import add_flags, lay_out, summary
from models.preprocess import at_size
from models.store import open_bundle
from training.own import tuning
from training.own.backbone import Backbone
from training.own.fitting import Outcome, fit_head
from training.own.photos.collection import collect
from training.own.processes import last_words, run_verb
from training.own.seen import Seen, see

KINDS = ("head", "fine-tuned", "scratch")
FOREVER_S = 1e6


def fitted(data: Path, bundle: Path, size: int, seed: int) -> tuple[Seen, Outcome]:
    opened = open_bundle(bundle)
    spec = at_size(opened.manifest.preprocess, size)
    seen = see(collect(data), Backbone(opened), spec, seed=seed, seconds=0)
    return seen, fit_head(seen, seed)


def fine_tuned(seen: Seen, outcome: Outcome, bundle: Path, epochs: int, seed: int, folder: Path) -> float:
    opened = open_bundle(bundle)
    plan = tuning.Plan(epochs, FOREVER_S, "")
    tuning.tune(seen, outcome, opened, Backbone(opened), plan, folder, seed, print)
    return last_top1(folder / "run")


def scratch(seen: Seen, bundle: Path, epochs: int, seed: int, folder: Path) -> float:
    """Twice the rate of a fine-tuned run's classifier, for all weights; the last weights, not their average."""
    manifest = open_bundle(bundle).manifest
    spec = manifest.preprocess
    keys: dict[str, object] = {"arch": manifest.network.variant, "backbone_lr": 1, "base_lr": 2e-3, "with_ema": False}
    keys["fused"] = False
    keys |= {"mean": list(spec.mean), "std": list(spec.std), "crop_pct": spec.crop_pct or 1.0, "stem_init": "whitened"}
    keys |= {"image_size": seen.size, "epochs": epochs, "eval_interval": epochs, "seed": seed}
    keys |= {"save_dir": folder, "name": "run"}
    flags = [str(word) for key, value in keys.items() for word in (f"--{key}", value)]
    log = folder / "scratch.log"
    if run_verb("train", ["--config", tuning.RECIPE, "--data_url", seen.source, *flags], None, log):
        raise SystemExit(last_words(log))
    return last_top1(folder / "run")


def last_top1(run: Path) -> float:
    return float(json.loads((run / "log.jsonl").read_text().splitlines()[-1])["val_top1"])


def cpu_s() -> float:
    """Of this process and those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(kind: str, args: argparse.Namespace, seed: int, folder: Path) -> float:
    lay_out(args.photos, folder / "data", seed, args.judge, args.per_class)
    seen, outcome = fitted(folder / "data", args.bundle, args.size, seed)
    if kind == "head":
        return outcome.judged.accuracy
    if kind == "scratch":
        return scratch(seen, args.bundle, args.epochs, seed, folder / "runs")
    return fine_tuned(seen, outcome, args.bundle, args.epochs, seed, folder / "runs")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, epochs=tuning.MOST_EPOCHS)
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS)
    args = parser.parse_args(argv)
    found: dict[str, list[float]] = {kind: [] for kind in args.only}
    for seed in args.seeds:
        for kind in args.only:
            with TemporaryDirectory(dir=args.photos.parent) as folder:  # beside the photos: links cross no file system
                began = cpu_s()
                found[kind].append(measure(kind, args, seed, Path(folder)))
            print(f"seed {seed}, {kind}: {found[kind][-1]:.1%}, {cpu_s() - began:.0f} s of CPU time", flush=True)
    first = args.only[0]
    for kind, tops in found.items():
        print(f"{kind}: {summary(tops)}")
    for kind in args.only[1:]:
        print(f"{kind} - {first}: {summary([a - b for a, b in zip(found[kind], found[first], strict=True)])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
