"""What `training.lite` runs in the interpreter that has MindSpore Lite, from Python 3.7 on: one conversion.

Its only argument is a JSON object: `onnx` and `mindir`, the paths (the latter without its suffix); `optimize`,
`input_shape` and `config`, as Lite's Converter has them; and, for a model that the CPU can run, `tensors` and `logits`,
the path of an array float32 (N, 3, S, S) and where to save its logits. It prints the version of Lite last.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import mindspore_lite as lite
import numpy as np


def convert(order: dict[str, Any]) -> None:
    converter = lite.Converter()
    converter.save_type = lite.ModelType.MINDIR
    converter.optimize = order["optimize"]
    if order["input_shape"]:
        converter.input_shape = order["input_shape"]
    for section, keys in order["config"].items():
        converter.set_config_info(section, keys)
    converter.convert(lite.FmkType.ONNX, order["onnx"], order["mindir"])


def logits_of(model_path: str, tensors: np.ndarray) -> np.ndarray:
    """float32 (N, 3, S, S) -> float32 (N, K), on the CPU."""
    model = lite.Model()
    model.build_from_file(model_path, lite.ModelType.MINDIR)
    model.resize(model.get_inputs(), [list(tensors.shape)])
    inputs = model.get_inputs()
    inputs[0].set_data_from_numpy(tensors)
    return np.array(model.predict(inputs)[0].get_data_to_numpy())


def main() -> None:
    order = json.loads(sys.argv[1])
    convert(order)
    if "tensors" in order:
        np.save(order["logits"], logits_of(order["mindir"] + ".mindir", np.load(order["tensors"])))
    print(lite.__version__)


if __name__ == "__main__":
    main()
