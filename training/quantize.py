"""python -m training.quantize --bundle BUNDLE --calibration FOLDER --data FOLDER --out NEW: precisions below fp32.

The new bundle has all of the old one, int8 as ONNX (QDQ; calibrated on images that the network was trained with),
fp16 as ONNX, and what each precision loses. bf16 needs no file, engines compute the fp32 network in it.

1. each precision is evaluated on every image of --data, with the pixels that are served;
2. a precision that loses more top-1 than --max_top1_drop is refused, and nothing is written; with --force it is
   written, and the manifest tells that it loses too much, so that `--precision auto` never takes it;
3. the old bundle stays as it is;
4. fast pixels are measured, on large photos, and refused in the same way.

Needs ONNX Runtime, no MindSpore.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from models import golden
from models.errors import BundleError, ImageError
from models.manifest import Accuracy, Artifact, FastPixels, Pixels, Precision, Preprocess
from models.preprocess import images_in, preprocess
from models.store import Bundle, open_bundle
from models.versions import write_version
from training.data.datasets import ImageFolder, Images, scan
from training.data.pipeline import evaluation_batches
from training.deploy import precisions
from training.deploy.offline import Engine
from training.deploy.onnx_engine import open_engine
from training.deploy.versions import check_new
from training.errors import ConfigError, DataError, TrainingError, reporting_errors
from training.files import read_whole

FILES: dict[Precision, str] = {"fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}  # bf16 has none
BATCH = 32
# What another engine's golden logits may be off, since it rounds in other places: times what was measured here
# (OpenVINO had 1.2 times in bf16), and in int8 at least a share of the greatest logit (OpenVINO had 3.7 times on a
# network of two layers; that the network is right is proven by top-1).
GOLDEN_MARGIN = 3.0
GOLDEN_SHARE_INT8 = 0.1

SAME_TOP1 = 0.001  # engines may disagree on one image of a thousand


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    try:
        check_new(flags.out)
        bundle = open_bundle(flags.bundle)
        images = _labelled(flags.data, bundle)
        photos = _labelled(flags.fast_pixels, bundle) if flags.fast_pixels else None
        batches = calibration_batches(flags.calibration, flags.images, bundle.manifest.preprocess)
        models = build(bundle, flags.precisions, batches, flags.calibrate)
        top1, deltas = measure(models, images, bundle)
        print(table(top1, deltas, bundle))
        if (known := bundle.manifest.training.top1) is not None and abs(known - top1["fp32"]) > SAME_TOP1:
            print(f"note: the manifest says {known:.2%} for fp32: is {flags.data} what it was evaluated on?")
        fast = measure_fast(bundle, photos) if photos else None
        if fast:
            print(f"fast pixels: {fast}")
        if not flags.force:
            _refuse_losses(top1, fast, flags.max_top1_drop)
        if fast is None and bundle.manifest.accuracy:
            fast = bundle.manifest.accuracy.fast_pixels
        top1 = _known_top1(bundle, top1["fp32"]) | top1
        accuracy = Accuracy(top1=top1, max_top1_drop=flags.max_top1_drop, fast_pixels=fast)
        artifacts, files = _artifacts(bundle, models)
        tolerance = _tolerances(bundle, deltas)
        written = write_version(bundle, flags.out, artifacts, files, tolerance, accuracy=accuracy)
    except BundleError as error:
        raise DataError(str(error)) from error
    kinds = ", ".join(f"{artifact.format} {artifact.precision}" for artifact in written.manifest.artifacts)
    print(f"{written.folder}: {kinds}; golden tolerances: {written.manifest.golden.tolerance}")
    return 0


def _known_top1(bundle: Bundle, fp32: float) -> dict[Precision, float]:
    """What the bundle says of its precisions, if that was measured on the same images: by the top-1 of fp32."""
    known = bundle.manifest.accuracy
    return known.top1 if known and abs(known.top1["fp32"] - fp32) <= SAME_TOP1 else {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.quantize",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", required=True, metavar="BUNDLE", help="a folder, or name[/version] of the store")
    parser.add_argument(
        "--calibration", type=Path, required=True, metavar="FOLDER", help="training images, in folders of any depth"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="FOLDER/<class>/*: what each precision is judged by"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="new folder STORE/NAME/VERSION for the bundle"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=("int8", "bf16", "fp16"), default=["int8", "bf16"], metavar="PRECISION",
        help="of int8, bf16, fp16 [default: int8 bf16]",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=512, metavar="N", help="calibration images [default: 512]")
    parser.add_argument(
        "--calibrate",
        choices=list(precisions.CALIBRATIONS),
        default="percentile",
        help="how int8 chooses the ranges of activations: all of minmax, 99.999 %% of percentile [the default], or "
        "what entropy loses least with",
    )
    parser.add_argument(
        "--max_top1_drop", type=float, default=0.005, metavar="F", help="fraction of images [default: 0.005]"
    )
    parser.add_argument(
        "--fast_pixels", type=Path, metavar="FOLDER", help="FOLDER/<class>/*: large photos to measure fast pixels on"
    )
    parser.add_argument("--force", action="store_true", help="write the bundle whatever is lost")
    return parser


def calibration_batches(folder: Path, count: int, spec: Preprocess) -> Iterator[NDArray[np.float32]]:
    """About `count` of the folder's images, which lie evenly over it, in batches of one size, as ONNX Runtime wants
    them. Raises DataError, ConfigError.
    """
    if count < 1:
        raise ConfigError(f"--images {count}: calibrate with at least 1 image")
    paths = sorted(images_in(folder))
    if not paths:
        raise DataError(f"--calibration {folder} holds no images")
    chosen = paths[:: ceil(len(paths) / count)]
    size = min(BATCH, len(chosen))
    for start in range(0, len(chosen) - size + 1, size):
        yield np.stack([_tensor(path, spec) for path in chosen[start : start + size]])


def _tensor(path: Path, spec: Preprocess, pixels: Pixels = "exact") -> NDArray[np.float32]:
    try:
        return preprocess(read_whole(path), spec, pixels=pixels)
    except ImageError as error:
        raise DataError(f"{path}: {error.detail}") from error


def _labelled(folder: Path, bundle: Bundle) -> ImageFolder:
    images = scan(folder, len(bundle.labels))
    if images.classes != bundle.labels:
        raise DataError(f"the folders in {folder} must be the bundle's labels: {', '.join(bundle.labels[:5])} ...")
    return images


def build(
    bundle: Bundle, wanted: Sequence[Precision], batches: Iterator[NDArray[np.float32]], calibration: str
) -> dict[Precision, onnx.ModelProto]:
    """fp32 and the wanted precisions as ONNX; bf16 is emulated. Raises BundleError for a bundle without fp32 ONNX."""
    source = onnx.load_model(bundle.path(bundle.artifact(("onnx",), "fp32")))
    make: dict[Precision, Callable[[], onnx.ModelProto]] = {
        "int8": lambda: precisions.int8(source, batches, calibration),
        "bf16": lambda: precisions.bf16_emulated(source),
        "fp16": lambda: precisions.fp16(source),
    }
    models: dict[Precision, onnx.ModelProto] = {"fp32": source}
    return models | {precision: make[precision]() for precision in wanted}


def measure(
    models: Mapping[Precision, onnx.ModelProto], images: Images, bundle: Bundle
) -> tuple[dict[Precision, float], dict[Precision, float]]:
    """-> top-1 on the images, and the greatest difference of a golden logit. Raises TrainingError."""
    spec, right = bundle.manifest.preprocess, Counter[Precision]()
    tensors, expected = golden.load(bundle)
    with tempfile.TemporaryDirectory() as folder:
        engines = {precision: _engine(Path(folder), precision, model) for precision, model in models.items()}
        deltas = {
            precision: float(
                np.max(
                    [np.abs(engine.infer(tensor[None]) - row) for tensor, row in zip(tensors, expected, strict=True)]
                )
            )
            for precision, engine in engines.items()
        }
        batches = evaluation_batches(images, spec, BATCH, workers=2)
        for batch in tqdm(batches, "evaluate", ceil(len(images) / BATCH), leave=False, disable=None):
            for precision, engine in engines.items():
                answers = engine.infer(batch.images)[: batch.count].argmax(axis=1)
                right[precision] += int((answers == batch.labels[: batch.count]).sum())
    return {precision: right[precision] / len(images) for precision in models}, deltas


def measure_fast(bundle: Bundle, photos: ImageFolder) -> FastPixels:
    """Of the photos that fast pixels change. Raises TrainingError, also if there are none."""
    engine = open_engine(bundle.path(bundle.artifact(("onnx",), "fp32")), "CPU", 0)
    spec, found = bundle.manifest.preprocess, []
    for path, class_id in tqdm(photos.images, "fast pixels", leave=False, disable=None):
        exact, fast = _tensor(path, spec), _tensor(path, spec, "fast")
        if not np.array_equal(exact, fast):
            found.append((class_id, *engine.infer(np.stack([exact, fast])).argmax(axis=1)))
    if not found:
        raise DataError(f"--fast_pixels {photos.root} holds no photo so large that fast pixels change it")
    truth, exact_answer, fast_answer = np.transpose(found)
    return FastPixels(
        images=len(found),
        agreement=float(np.mean(exact_answer == fast_answer)),
        exact_top1=float(np.mean(exact_answer == truth)),
        fast_top1=float(np.mean(fast_answer == truth)),
    )


def _engine(folder: Path, precision: Precision, model: onnx.ModelProto) -> Engine:
    path = folder / f"{precision}.onnx"
    onnx.save(model, path)
    return open_engine(path, "CPU", 0)


def table(top1: Mapping[Precision, float], deltas: Mapping[Precision, float], bundle: Bundle) -> str:
    """What each precision costs, a line each."""
    lines = [f"{bundle.folder}:", f"{'precision':<10} {'top-1':>8} {'lost':>8}  greatest difference of a golden logit"]
    for precision, share in top1.items():
        lines.append(f"{precision:<10} {share:>8.2%} {top1['fp32'] - share:>8.2%}  {deltas[precision]:.3g}")
    return "\n".join(lines)


def _refuse_losses(top1: Mapping[Precision, float], fast: FastPixels | None, most: float) -> None:
    if fast and (doubt := fast.doubt(most)):
        raise TrainingError(
            f"{doubt}: nothing is written; leave out --fast_pixels, or write it all the same with --force"
        )
    lost = {precision: top1["fp32"] - share for precision, share in top1.items()}
    if too_much := [f"{precision} loses {drop:.2%}" for precision, drop in lost.items() if drop > most]:
        raise TrainingError(
            f"{', '.join(too_much)} of top-1, --max_top1_drop is {most:.2%}: nothing is written; try another "
            "--calibrate or more --images, train the QARepVGG form, or write it all the same with --force"
        )


def _artifacts(
    bundle: Bundle, models: Mapping[Precision, onnx.ModelProto]
) -> tuple[list[Artifact], dict[str, bytes | Path]]:
    """Of the precisions that have a file, and these files."""
    source = bundle.artifact(("onnx",), "fp32")
    artifacts: list[Artifact] = []
    files: dict[str, bytes | Path] = {}
    for precision, file in FILES.items():
        if precision in models:
            encoded = models[precision].SerializeToString()
            digest = hashlib.sha256(encoded).hexdigest()
            artifacts.append(source.model_copy(update={"precision": precision, "file": file, "sha256": digest}))
            files[file] = encoded
    return artifacts, files


def _tolerances(bundle: Bundle, deltas: Mapping[Precision, float]) -> dict[str, float]:
    """Of every measured precision but fp32, whose own stays."""
    tolerance: dict[str, float] = {name: GOLDEN_MARGIN * delta for name, delta in deltas.items() if name != "fp32"}
    if "int8" in tolerance:
        greatest = float(np.abs(golden.load(bundle)[1]).max())
        tolerance["int8"] = max(tolerance["int8"], GOLDEN_SHARE_INT8 * greatest)
    return tolerance


if __name__ == "__main__":
    sys.exit(main())
