"""Train, evaluate, fuse and export RepVGG with MindSpore; never imported by the service."""

from importlib.util import find_spec

from training.run.distributed.device import limit_onednn

if find_spec("yaml") is None:
    raise ModuleNotFoundError(
        "the packages for training are not installed: in a clone, run python3 scripts/setup.py dev (0.9 GB); "
        "elsewhere, pip install 'repvgg[train]'"
    )
limit_onednn()  # before anything imports MindSpore, because oneDNN reads the variable only once
