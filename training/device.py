"""Where a run takes place: sets the device, and says what it set."""

from __future__ import annotations

import os

from training.errors import DeviceError

ONEDNN_ISA = "DNNL_MAX_CPU_ISA"


def limit_onednn() -> None:
    """Keep oneDNN from AVX-512: there its 3x3 convolution on plain NCHW tensors is a reference loop.

    Measured on AMD Zen 5 with MindSpore 2.10: 1.84 s instead of 0.018 s for one layer. It matters to CPU
    kernels only, so it is done for every target; a value that the user has set is kept.
    """
    os.environ.setdefault(ONEDNN_ISA, "AVX2")


def prepare(target: str, device_id: int) -> str:
    """Set MindSpore's device and say so in a line. Raises DeviceError where framework or device is missing."""
    try:
        import mindspore as ms
    except ImportError as error:
        raise DeviceError(f"MindSpore cannot be imported ({error}); install it: pip install 'repvgg[train]'") from error
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        ms.set_device(target, None if target == "CPU" else device_id)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"device_target {target} is not available here: {first_line}") from error
    if target == "CPU":
        return f"MindSpore {ms.__version__} on CPU, oneDNN up to {os.environ[ONEDNN_ISA]} ({ONEDNN_ISA})"
    return f"MindSpore {ms.__version__} on {target} {device_id}"
