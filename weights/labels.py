"""Class names as text files, one label per line."""

from __future__ import annotations

from pathlib import Path

from weights.errors import LabelsError

IMAGENET_LABELS = Path(__file__).parent / "imagenet_labels.txt"


def read_labels(path: Path) -> list[str]:
    """One label per line, class 0 first; a line that starts with # is a comment. Raises LabelsError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise LabelsError(f"labels {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"labels {path} is not UTF-8 text: {error}") from error
    labels = [line.strip() for line in lines if not line.startswith("#")]
    if not labels or "" in labels:
        raise LabelsError(f"labels {path} must hold at least one label, one per line, and no empty line")
    return labels
