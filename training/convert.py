"""python -m training.convert --from SOURCE --arch NAME --weights FILE --out BUNDLE: weights of others -> model bundle.

With --checkpoint FILE.ckpt in the place of --out they become a checkpoint, which --pretrained takes: to train on from.

1. every missing, unused and misshapen weight is named, and then nothing is written;
2. the bundle has the preprocessing with which the source measured the accuracy that it publishes;
3. top-1 and top-5 stay empty in its manifest: a published figure is not one that was measured here;
4. a checkpoint has the train form and is a new file; weights that are fused already are refused for it.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from models.manifest import Preprocess, Training
from models.store import sha256
from training.deploy.versions import check_new
from training.errors import CheckpointError, ConfigError, DataError, reporting_errors
from training.network.variants import VARIANTS, Variant
from training.run import device
from training.weights import readers, sources
from training.weights.sources import SOURCES

if TYPE_CHECKING:
    from training.network.repvgg import RepVGG

IMAGENET_LABELS = Path(__file__).with_name("imagenet_labels.txt")


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    if flags.arch not in VARIANTS:
        nearest = difflib.get_close_matches(flags.arch, VARIANTS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown arch {flags.arch!r}; did you mean {nearest!r}?")
    source = SOURCES[flags.source]
    spec = sources.preprocess_of(source, flags.arch)
    labels = read_labels(IMAGENET_LABELS if flags.labels == "imagenet" else Path(flags.labels))
    if flags.checkpoint:
        _check_new_checkpoint(flags.checkpoint)
    else:
        check_new(flags.out)
    print(device.prepare("CPU", 0))
    from training.deploy import bundle
    from training.network import repvgg  # MindSpore takes seconds to import: not for --help or a wrong flag
    from training.run import checkpoint

    found, left_out = translated(flags.weights, source)
    deploy = flags.checkpoint is None
    network = network_of(found, VARIANTS[flags.arch], len(labels), deploy=deploy, file=flags.weights)
    origin = f"{flags.arch} from {flags.weights}, {len(labels)} classes"
    if deploy:
        print(f"{flags.weights} fits; now exporting and comparing the logits, minutes for the largest networks")
        record = _record(flags.weights, source.title, flags.labels)
        written = bundle.publish(network, flags.arch, flags.out, spec, labels, record, golden=flags.golden)
        print(f"{written.folder}: {origin}, fused")
    else:
        checkpoint.save(flags.checkpoint, repvgg.weights(network), {})
        print(f"{flags.checkpoint}: {origin}, train form; recipe keys of its source: {_keys(spec)}")
    if left_out:
        print(f"  left out, no weights of the network: {len(left_out)} entries such as {left_out[0]}")
    return 0


def read_labels(path: Path) -> list[str]:
    """One label a line, class 0 first; a line that starts with # is a comment. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"labels {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"labels {path} is not UTF-8 text: {error}") from error
    labels = [line.strip() for line in lines if not line.startswith("#")]
    if not labels or "" in labels:
        raise DataError(f"labels {path} must hold one label a line and no empty line")
    return labels


def translated(file: Path, source: sources.Source) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """A file of weights -> float32 weights by our names, and what it holds beside them. Raises CheckpointError."""
    if file.suffix == ".ckpt":
        from training.network import ema
        from training.run import checkpoint

        found = checkpoint.read(file)
        if source is SOURCES["own"] and any(name.startswith(ema.PREFIX) for name in found):
            found = checkpoint.network_weights(found)  # the averages, as evaluated and exported
    else:
        found = readers.read(file)
    try:
        return sources.translate(found, source)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error


def network_of(
    found: dict[str, NDArray[Any]], variant: Variant, num_classes: int, *, deploy: bool, file: Path
) -> RepVGG:
    """Weights by our names -> network: with `deploy` of either form, and fused; without, of the train form only.

    Raises CheckpointError that names what does not fit, ConfigError for another number of classes.
    """
    from training.run import checkpoint

    if "classifier.bias" in found and len(found["classifier.bias"]) != num_classes:
        classes = len(found["classifier.bias"])
        raise ConfigError(f"{file} tells {classes} classes apart, the labels are {num_classes}: give --labels FILE")
    network = checkpoint.network_of(found, variant, num_classes, deploy=deploy, source=file)
    if not (deploy or checkpoint.is_train_form(found)):
        raise CheckpointError(
            f"{file} is fused and has no branches to train: give the file of the train form for --checkpoint; "
            "as it is, it can become a bundle (--out)"
        )
    return network


def _check_new_checkpoint(file: Path) -> None:
    if file.suffix != ".ckpt":
        raise ConfigError(f"--checkpoint {file}: the name of a checkpoint ends in .ckpt")
    if file.exists():
        raise ConfigError(f"--checkpoint {file} exists: give a new file")


def _keys(spec: Preprocess) -> str:
    """The keys of a recipe that prepares images so; mean and std are those of every source."""
    return f"image_size: {spec.input_size}, interpolation: {spec.interpolation}, crop_pct: {spec.crop_pct}"


def _record(file: Path, title: str, labels: str) -> Training:
    from training.deploy import bundle

    return Training(
        dataset="ImageNet-1k" if labels == "imagenet" else f"the classes of {Path(labels).name}",
        evaluated_on="not measured here",
        recipe=f"weights of {title}: {file.name}, sha256 {sha256(file)}",
        epochs=0,
        framework=bundle.framework(),
        git_commit=bundle.git_commit(),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.convert", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--from",
        dest="source",
        choices=tuple(SOURCES),
        required=True,
        help="whose code wrote the weights; it decides their names and the preprocessing",
    )
    parser.add_argument(
        "--arch", metavar="NAME", required=True, help="a name of training.network.variants, RepVGG-A0 and on"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        required=True,
        help="MindSpore's .ckpt, .safetensors, or a file of torch.save (PyTorch is not needed); train or deploy form",
    )
    parser.add_argument(
        "--labels",
        default="imagenet",
        metavar="imagenet|FILE",
        help="the 1000 classes of ImageNet-1k, or a text file with one label a line [default: imagenet]",
    )
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
