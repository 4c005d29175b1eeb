"""Is there room on the disk? Checked before anything is fetched, if the sizes are known."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from hub.errors import NoSpace
from hub.progress import megabytes

Free = Callable[[Path], int]


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def check(needs: Mapping[Path, int], free: Free = _free) -> None:
    """`needs`: folder -> bytes that will be written there. Folders on one disk share it. Raises NoSpace."""
    total: dict[int, int] = defaultdict(int)
    for folder, count in needs.items():
        place = _existing(folder)
        device = place.stat().st_dev
        total[device] += count
        if (missing := total[device] - free(place)) > 0:
            raise NoSpace(
                f"{folder} needs {megabytes(total[device])}, and its disk has {megabytes(free(place))} free: "
                f"{megabytes(missing)} are missing"
            )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
