"""python -m training.lite --bundle BUNDLE --out NEW_BUNDLE --lite-python PYTHON: add what MindSpore Lite can serve.

1. the bundle is not changed: a new one is written, with everything that the old one has;
2. an artifact for the CPU whose logits are not the golden ones is not written;
3. one that is compiled for an Ascend device is left to the golden check of the service, on that device.

Lite converts the bundle's ONNX, as it reads the MINDIR of no newer MindSpore. Its options are those of mindspore.cn,
"Ascend Conversion Tool Description", and of `mindspore_lite.Converter`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models import golden
from models.errors import BundleError
from models.manifest import Artifact, Precision
from models.store import Bundle, open_bundle, sha256
from models.versions import write_version
from training.deploy.versions import check_new
from training.errors import ConfigError, DataError, TrainingError, reporting_errors

CONVERTER = Path(__file__).with_name("deploy") / "lite_converter.py"
# Half precision on CPU (ONNX's reference evaluator and ONNX Runtime) was up to 0.0051 off the golden logits of
# repvgg-tiny-cifar10, which lie between -3 and 9.5. A device that adds in another order gets ten times that.
FP16_TOLERANCE = 0.05


@dataclass(frozen=True)
class Target:
    """A device: the format of its artifact, the precision that it computes in, CANN's name for it if it is an Ascend.

    Without a name the artifact is portable: any device can load it, and optimises it then.
    """

    format: Literal["lite-mindir", "lite-mindir-ascend310", "lite-mindir-ascend310p"]
    precision: Precision
    soc: str | None


TARGETS = {
    "cpu": Target("lite-mindir", "fp32", None),
    "ascend310": Target("lite-mindir-ascend310", "fp16", "Ascend310"),
    "ascend310p": Target("lite-mindir-ascend310p", "fp16", "Ascend310P3"),
}


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    target = TARGETS[flags.target]
    if target.soc and not flags.batch:
        raise ConfigError(f"--target {flags.target} is compiled for its batch sizes: name them, such as --batch 1,4,8")
    try:
        bundle = open_bundle(flags.bundle)
        written, lite = add_artifact(bundle, flags.out, flags.lite_python, target, flags.batch)
    except BundleError as error:
        raise DataError(str(error)) from error
    artifact = written.manifest.artifacts[-1]
    print(f"{written.folder}: {artifact.format} {artifact.precision} by MindSpore Lite {lite}, {artifact.file}")
    return 0


def add_artifact(
    bundle: Bundle, folder: Path, lite_python: Path, target: Target, batch: list[int]
) -> tuple[Bundle, str]:
    """-> the new bundle, and the version of Lite; an empty `batch` means any.

    Raises BundleError, ConfigError, TrainingError.
    """
    check_new(folder)
    onnx = bundle.artifact(("onnx",), "fp32")
    with tempfile.TemporaryDirectory() as drafts:
        model, lite = convert(bundle, onnx, Path(drafts), lite_python, target, batch)
        name = f"model.{target.format}".replace("-mindir", "") + ".mindir"
        artifact = Artifact(
            format=target.format,
            precision=target.precision,
            file=name,
            sha256=sha256(model),
            input=onnx.input,
            output=onnx.output,
            batch=batch or "dynamic",
        )
        return write_version(bundle, folder, [artifact], {name: model}, tolerance(bundle, target.precision)), lite


def tolerance(bundle: Bundle, precision: Precision) -> dict[str, float]:
    """What must be added to the golden tolerances of the bundle for a Lite artifact of this precision."""
    known = precision in bundle.manifest.golden.tolerance
    return {"fp16": FP16_TOLERANCE} if precision == "fp16" and not known else {}


def convert(
    bundle: Bundle, onnx: Artifact, drafts: Path, lite_python: Path, target: Target, batch: list[int]
) -> tuple[Path, str]:
    """-> the MINDIR in `drafts`, checked where it can be, and the version of Lite."""
    order = {"onnx": str(bundle.path(onnx)), "mindir": str(drafts / "model")}
    if target.soc:
        options = ascend_options(onnx.input, bundle.manifest.preprocess.input_size, target.soc, batch)
        return drafts / "model.mindir", run_lite(lite_python, order | options)
    tensors, expected = golden.load(bundle)
    np.save(drafts / "tensors.npy", tensors)
    order |= {"tensors": str(drafts / "tensors.npy"), "logits": str(drafts / "logits.npy")}
    # Optimised when it is loaded, it can be loaded by any device.
    lite = run_lite(lite_python, order | {"optimize": "none", "input_shape": {}, "config": {}})
    delta = float(np.max(np.abs(np.load(drafts / "logits.npy") - expected)))
    if not delta <= bundle.manifest.golden.tolerance.get("fp32", 0.0):  # written so that NaN is caught too
        raise TrainingError(f"what Lite converted is up to {delta:.3g} off the golden logits of {bundle.folder}")
    return drafts / "model.mindir", lite


def ascend_options(name: str, input_size: int, soc: str, sizes: list[int]) -> dict[str, Any]:
    """Lite's own for a network with the input `name`, compiled for these batch sizes."""
    shape = [3, input_size, input_size]
    context = {"input_format": "NCHW", "precision_mode": "enforce_fp16"}
    if len(sizes) > 1:
        dims = ",".join(map(str, [-1, *shape]))
        context |= {"input_shape": f"{name}:[{dims}]", "dynamic_dims": ",".join(f"[{size}]" for size in sizes)}
    return {
        "optimize": "ascend_oriented",
        "input_shape": {name: [sizes[0], *shape]} if len(sizes) == 1 else {},
        "config": {"ascend_context": context, "acl_init_options": {"ge.socVersion": soc}},
    }


def run_lite(lite_python: Path, order: dict[str, Any]) -> str:
    """Run the conversion -> Lite's version. Its own messages go to stderr. Raises ConfigError, TrainingError."""
    try:
        done = subprocess.run(  # noqa: S603
            [lite_python, CONVERTER, json.dumps(order)],
            env={"GLOG_v": "3"} | os.environ,  # errors only, unless more is wanted
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ConfigError(f"--lite-python {lite_python} cannot be run: {error.strerror}") from error
    if done.returncode:
        cann = ", with CANN's set_env.sh sourced" if "ascend_oriented" in order.values() else ""
        raise TrainingError(
            f"{lite_python} could not convert {order['onnx']}, its words are above: it must be a Python that has "
            f"MindSpore Lite{cann}; scripts/setup.py lite makes one in .venv-lite"
        )
    return done.stdout.splitlines()[-1]


def _batch_sizes(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 1,4,8")
    return sorted({int(size) for size in text.split(",")})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.lite", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--bundle", required=True, metavar="BUNDLE", help="a folder, or a name or name/version of the store"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder STORE/NAME/VERSION")
    parser.add_argument("--lite-python", required=True, type=Path, metavar="PYTHON", help="one that has mindspore_lite")
    parser.add_argument("--target", choices=TARGETS, default="cpu", help="[default: cpu, which any device can load]")
    parser.add_argument(
        "--batch",
        type=_batch_sizes,
        default=[],
        metavar="1,4,8",
        help="batch sizes of the artifact [default: any; needed for Ascend]",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
