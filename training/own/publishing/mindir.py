"""The network as MINDIR, if MindSpore is installed: its weights in MindSpore's network, exported in another process.

Its logits are compared with the golden ones twice: those of the network, and those of the exported file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from models.manifest import Artifact
from models.store import Bundle
from training.own.processes import last_words, run_verb
from training.own.publishing.addition import Addition
from weights.variants import VARIANTS

LEAST_S = 15.0  # MindSpore takes seconds to import
FILE = "model.mindir"


def mindir(draft: Bundle, folder: Path, seconds: float, say: Callable[[str], None]) -> Addition | None:
    """Work in `folder`; `seconds`: the time that is left. None if it is impossible, with a line if the export
    failed."""
    variant, known = draft.manifest.network.variant, {artifact.format for artifact in draft.manifest.artifacts}
    if variant not in VARIANTS or "mindir" in known or seconds < LEAST_S or find_spec("mindspore") is None:
        return None
    flags: list[str | Path] = [
        "--pretrained",
        draft.folder,
        "--file_format",
        "MINDIR",
        "--output_dir",
        folder,
        "--device_target",
        "CPU",
    ]
    log = folder / "mindir.log"
    if failed := run_verb("export", flags, None, log):
        say(f"no MINDIR: the export {failed}: {last_words(log)}")
        return None
    content = (folder / f"{variant}.mindir").read_bytes()
    artifact = Artifact(
        format="mindir",
        precision="fp32",
        file=FILE,
        sha256=hashlib.sha256(content).hexdigest(),
        input="image",
        output="logits",
        batch="dynamic",
    )
    return Addition([artifact], {FILE: content})
