"""Writes a bundle of any variant with random weights, for benchmarks: it costs as much as a trained one, at any size.

python -m benchmarks.random_bundle --arch RepVGG-A0 --out FOLDER/NAME/VERSION [--size 224] [--classes 1000]
                                [--calibration PHOTOS]

Kernels are initialised as in He et al. 2015, so that activations keep their scale through the network, as with batch
norm, and answers differ between images. With photos to calibrate with it also has int8.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from models import golden
from models.manifest import Artifact, Golden, Labels, Manifest, Network, Preprocess, Training
from models.preprocess import preprocess
from models.store import name_and_version, write_bundle
from training.deploy import precisions
from training.deploy.lower import FILES
from training.deploy.quantization import calibration_batches
from training.errors import TrainingError
from weights.variants import VARIANTS, Variant

CALIBRATION_PHOTOS = 64
TOLERANCE: dict[str, float] = {"fp32": 1e-2, "bf16": 2.0, "int8": 2.0}  # of logits with a deviation of 2
SAMPLES = Path(__file__).parent.parent / "models" / "samples"


def network(variant: Variant, classes: int, size: int) -> onnx.ModelProto:
    """The deploy form, without squeeze-and-excitation: float32 `image` (N, 3, S, S) -> `logits` (N, K)."""
    rng = np.random.default_rng(1)
    nodes, weights, source = [], {}, "image"
    for block in variant.blocks():
        shape = (block.out_channels, block.in_channels // block.groups, 3, 3)
        weights[f"{block.name}.kernel"] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{block.name}.bias"] = rng.standard_normal(shape[0]) * 0.05
        inputs = [source, f"{block.name}.kernel", f"{block.name}.bias"]
        how = {"strides": [block.stride] * 2, "pads": [1] * 4, "group": block.groups}
        nodes.append(helper.make_node("Conv", inputs, [f"{block.name}.conv"], **how))
        source = f"{block.name}.relu"
        nodes.append(helper.make_node("Relu", [f"{block.name}.conv"], [source]))
    width = variant.widths[-1]
    weights |= {"head": rng.standard_normal((classes, width)) * 3 / np.sqrt(width), "shift": np.zeros(classes)}
    nodes.append(helper.make_node("ReduceMean", [source], ["mean"], axes=[2, 3], keepdims=0))
    nodes.append(helper.make_node("Gemm", ["mean", "head", "shift"], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(arch: str, folder: Path, classes: int, size: int, calibration: Path | None = None) -> None:
    name, version = name_and_version(folder)
    spec = Preprocess(
        input_size=size,
        interpolation="bicubic",
        crop_pct=0.875,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    model = network(VARIANTS[arch], classes, size)
    images = {path.name: path.read_bytes() for path in sorted(SAMPLES.glob("*"))[:2]}
    tensors = np.stack([preprocess(encoded, spec) for encoded in images.values()])
    logits = ReferenceEvaluator(model).run(None, {"image": tensors})[0]
    files = golden.pack(images, logits.tolist())
    files |= {
        "model.onnx": model.SerializeToString(),
        "labels.txt": "".join(f"{n:04}\n" for n in range(classes)).encode(),
    }
    if calibration:
        batches = calibration_batches(calibration, CALIBRATION_PHOTOS, spec)
        files[FILES["int8"]] = precisions.int8(model, batches, "minmax").SerializeToString()
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    kind = {"format": "onnx", "input": "image", "output": "logits", "batch": "dynamic"}
    networks = {"fp32": "model.onnx"} | ({"int8": FILES["int8"]} if calibration else {})
    manifest = Manifest(
        name=name,
        version=version,
        created_at="2026-01-01T00:00:00Z",
        network=Network(
            variant=arch,
            num_classes=classes,
            parameters=sum(numpy_helper.to_array(weight).size for weight in model.graph.initializer),
        ),
        preprocess=spec,
        labels=Labels(file="labels.txt", sha256=digests["labels.txt"]),
        artifacts=[
            Artifact(file=file, sha256=digests[file], precision=precision, **kind)
            for precision, file in networks.items()
        ],
        golden=Golden(
            file=golden.FILE, sha256=digests[golden.FILE], tolerance={"fp32": 1e-2, "bf16": 2.0, "int8": 2.0}
        ),
        training=Training(
            dataset="none", evaluated_on="none", recipe="random weights", epochs=0, framework="none", git_commit="none"
        ),
    )
    write_bundle(folder, manifest, files)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_bundle", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--arch", choices=VARIANTS, default="RepVGG-A0", metavar="ARCH")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--size", type=int, default=224, help="input size, pixels")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--calibration", type=Path, metavar="PHOTOS", help="a folder: adds int8")
    flags = parser.parse_args()
    try:
        write(flags.arch, flags.out, flags.classes, flags.size, flags.calibration)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
