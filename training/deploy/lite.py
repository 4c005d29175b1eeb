"""Adds an artifact for MindSpore Lite to a bundle.

1. the bundle is not changed: a new bundle gets all of its content and the new artifact;
2. an artifact for the CPU is only written if it reproduces the golden logits;
3. an artifact compiled for an Ascend device cannot run here: the service's golden check tests it on that device.

Lite converts the bundle's ONNX, because it cannot read the MINDIR of a newer MindSpore. Its options are documented on
mindspore.cn, "Ascend Conversion Tool Description", and in `mindspore_lite.Converter`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models import golden
from models.manifest import Artifact, Precision
from models.store import Bundle, sha256
from models.versions import write_version
from training.deploy.versions import check_new
from training.errors import ConfigError, TrainingError

CONVERTER = Path(__file__).with_name("lite_converter.py")
# Half precision on CPU (ONNX's reference evaluator and ONNX Runtime) differed by up to 0.0051 from the golden logits of
# repvgg-tiny-cifar10, which lie between -3 and 9.5. A device may sum in another order, so it is allowed ten times that.
FP16_TOLERANCE = 0.05


@dataclass(frozen=True)
class Target:
    """A device: the format of its artifact, the precision it computes in, and for an Ascend CANN's name of its chip.

    Without `soc` the artifact is portable: any device can load it and optimises it while loading.
    """

    format: Literal["lite-mindir", "lite-mindir-ascend310", "lite-mindir-ascend310p"]
    precision: Precision
    soc: str | None


TARGETS = {
    "cpu": Target("lite-mindir", "fp32", None),
    "ascend310": Target("lite-mindir-ascend310", "fp16", "Ascend310"),
    "ascend310p": Target("lite-mindir-ascend310p", "fp16", "Ascend310P3"),
}


def add_artifact(
    bundle: Bundle, folder: Path, lite_python: Path, target: Target, batch: list[int]
) -> tuple[Bundle, str]:
    """Write the new bundle `folder` -> that bundle, and the version of Lite. An empty `batch` means any batch size.

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
    """The golden tolerances that the bundle lacks for a Lite artifact of this precision."""
    known = precision in bundle.manifest.golden.tolerance
    return {"fp16": FP16_TOLERANCE} if precision == "fp16" and not known else {}


def convert(
    bundle: Bundle, onnx: Artifact, drafts: Path, lite_python: Path, target: Target, batch: list[int]
) -> tuple[Path, str]:
    """-> the MINDIR in `drafts`, checked if it can run on the CPU, and the version of Lite."""
    request = {"onnx": str(bundle.path(onnx)), "mindir": str(drafts / "model")}
    if target.soc:
        options = ascend_options(onnx.input, bundle.manifest.preprocess.input_size, target.soc, batch)
        return drafts / "model.mindir", run_lite(lite_python, request | options)
    tensors, expected = golden.load(bundle)
    np.save(drafts / "tensors.npy", tensors)
    request |= {"tensors": str(drafts / "tensors.npy"), "logits": str(drafts / "logits.npy")}
    # Without optimisation here, any device can load the model and optimise it then.
    lite = run_lite(lite_python, request | {"optimize": "none", "input_shape": {}, "config": {}})
    delta = float(np.max(np.abs(np.load(drafts / "logits.npy") - expected)))
    if not delta <= bundle.manifest.golden.tolerance.get("fp32", 0.0):  # also true for NaN
        raise TrainingError(
            f"the logits of Lite's model differ by up to {delta:.3g} from the golden logits of {bundle.folder}"
        )
    return drafts / "model.mindir", lite


def ascend_options(name: str, input_size: int, soc: str, sizes: list[int]) -> dict[str, Any]:
    """Lite's options for a network with the input `name`, compiled for the batch `sizes`."""
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


def run_lite(lite_python: Path, request: dict[str, Any]) -> str:
    """Run lite_converter.py -> the version of Lite. Lite's messages go to stderr. Raises ConfigError, TrainingError."""
    try:
        done = subprocess.run(  # noqa: S603
            [lite_python, CONVERTER, json.dumps(request)],
            env={"GLOG_v": "3"} | os.environ,  # log errors only, unless the user has set another level
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ConfigError(f"cannot run --lite-python {lite_python}: {error.strerror}") from error
    if done.returncode:
        cann = ", with CANN's set_env.sh sourced" if "ascend_oriented" in request.values() else ""
        raise TrainingError(
            f"{lite_python} could not convert {request['onnx']}, see its messages above: it must be a Python with "
            f"MindSpore Lite{cann}; scripts/setup.py lite installs one in .venv-lite"
        )
    return done.stdout.splitlines()[-1]
