"""One conversion by MindSpore Lite: a program that `training.lite` runs in an interpreter that has Lite.

It works with Python 3.7 and later. Its only argument is a JSON object: `onnx` and `mindir` are paths, the latter
without its suffix; `optimize`, `input_shape` and `config` are options of Lite's Converter. For a model that the CPU can
run, `tensors` is the path of a float32 array (N, 3, S, S) and `logits` the path to save its logits to. The last line
that it prints is the version of Lite.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import mindspore_lite as lite
import numpy as np


def convert(request: dict[str, Any]) -> None:
    converter = lite.Converter()
    converter.save_type = lite.ModelType.MINDIR
    converter.optimize = request["optimize"]
    if request["input_shape"]:
        converter.input_shape = request["input_shape"]
    for section, keys in request["config"].items():
        converter.set_config_info(section, keys)
    converter.convert(lite.FmkType.ONNX, request["onnx"], request["mindir"])


def compute_logits(model_path: str, tensors: np.ndarray) -> np.ndarray:
    """float32 (N, 3, S, S) -> float32 (N, K), on the CPU."""
    model = lite.Model()
    model.build_from_file(model_path, lite.ModelType.MINDIR)
    model.resize(model.get_inputs(), [list(tensors.shape)])
    inputs = model.get_inputs()
    inputs[0].set_data_from_numpy(tensors)
    return np.array(model.predict(inputs)[0].get_data_to_numpy())


def main() -> None:
    request = json.loads(sys.argv[1])
    convert(request)
    if "tensors" in request:
        np.save(request["logits"], compute_logits(request["mindir"] + ".mindir", np.load(request["tensors"])))
    print(lite.__version__)


if __name__ == "__main__":
    main()
