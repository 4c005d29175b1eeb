"""python -m training.convert --from SOURCE --arch NAME --weights FILE --out BUNDLE: published weights -> model bundle.

With --checkpoint FILE.ckpt instead of --out, writes a checkpoint that --pretrained accepts: to continue training.

1. an error names every missing, unused and misshapen weight, and then nothing is written;
2. the bundle's preprocessing is the one with which the source measured its published accuracy;
3. the manifest leaves top-1 and top-5 empty, because a published figure was not measured here;
4. a checkpoint is a new file in the train form: weights that are already fused are rejected.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.deploy.versions import check_new, check_new_checkpoint
from training.errors import ConfigError, Parser, reporting_errors
from training.run.distributed import device
from weights.labels import IMAGENET_LABELS, read_labels
from weights.sources import SOURCES, check_arch, published_preprocess


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    source = SOURCES[flags.source]
    if flags.source == "own":  # a checkpoint of ours says its architecture, preprocessing and classes itself
        if flags.arch:
            check_arch(flags.arch)
    elif not flags.arch:
        raise ConfigError(f"--arch NAME is missing: files of {source.title} do not say which variant they contain")
    else:
        published_preprocess(source, flags.arch)
    given = _labels(flags.labels) if flags.labels else None
    if flags.reset_classifier and not flags.checkpoint:
        raise ConfigError("--reset_classifier is for --checkpoint: a bundle needs a classifier")
    if flags.checkpoint:
        check_new_checkpoint(flags.checkpoint)
    else:
        check_new(flags.out)
    print(device.prepare("CPU", 0))
    from training.deploy import conversion  # MindSpore takes seconds to import: not for --help or a wrong flag

    found = conversion.read_weights(flags.weights, source, averaged=flags.ema)
    arch = flags.arch or conversion.arch_of(found)
    labels, dataset = conversion.labels_of(found, given, flags.labels)
    spec = conversion.spec_of(found, source, arch)
    origin = f"{arch} from {flags.weights}"
    if flags.reset_classifier:
        conversion.write_backbone(found, arch, flags.checkpoint, spec)
        print(f"{flags.checkpoint}: {origin}, train form, without a classifier: train with --reset_classifier True")
    elif flags.checkpoint:
        conversion.write_checkpoint(found, arch, flags.checkpoint, labels, spec)
        keys = conversion.recipe_keys(spec)
        print(f"{flags.checkpoint}: {origin}, {len(labels)} classes, train form; recipe keys of its source: {keys}")
    else:
        written = conversion.write_bundle(
            found, source, arch, flags.out, labels, spec, dataset=dataset, golden=flags.golden
        )
        print(f"{written.folder}: {origin}, {len(labels)} classes, fused")
    for remark in found.remarks:
        print(f"  {remark}")
    return 0


def _labels(given: str) -> list[str]:
    return read_labels(IMAGENET_LABELS if given == "imagenet" else Path(given))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training.convert", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_source_flags(parser)
    _add_result_flags(parser)
    return parser


def _add_source_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        choices=tuple(SOURCES),
        required=True,
        help="the project whose code wrote the weights; it determines their names and the preprocessing",
    )
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="a variant in weights.variants, such as RepVGG-A0 [default: what a checkpoint of training.train says]",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        required=True,
        help="a MindSpore .ckpt, a .safetensors, or a file written by torch.save (PyTorch is not needed); train or "
        "deploy form",
    )
    parser.add_argument(
        "--labels",
        metavar="imagenet|FILE",
        help="the 1000 classes of ImageNet-1k, or a text file with one label per line [default: the classes that a "
        "checkpoint of training.train names, else imagenet]",
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="take the averaged weights of a training script's checkpoint (state_dict_ema, model_ema) instead of the "
        "plain ones",
    )
    parser.add_argument(
        "--reset_classifier",
        action="store_true",
        help="with --checkpoint: leave out the classifier, or do without one in a file that has none; training then "
        "starts with a new one",
    )


def _add_result_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--golden",
        type=Path,
        metavar="FOLDER",
        help="images whose logits every engine that serves the bundle must reproduce [default: the drawn samples]",
    )
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help="new folder STORE/NAME/VERSION; its last two parts become the bundle's name and version",
    )
    result.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE.ckpt",
        help="new file for --pretrained of training.train, eval and export; needs weights of the train form",
    )


if __name__ == "__main__":
    sys.exit(main())
