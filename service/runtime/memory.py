"""Warns if decoding the largest allowed images may exceed the memory limit, and says what to do."""

from __future__ import annotations

from pathlib import Path

from service.classify.memory import pixels_at_once
from service.machine.limits import memory_limits, usable_cpus
from service.settings import MEBIBYTE, Settings

# Measured in the container with the shipped network: 85 to 93 MiB before the first image; decoding takes 4.0 bytes per
# pixel for a plain image, and 8.0 for one with transparency, 16 bits or a rotation.
PROGRAM_BYTES = 100 * MEBIBYTE
BYTES_PER_PIXEL = 8


def memory_shortage(settings: Settings, root: Path = Path("/")) -> str | None:
    """A warning if the largest images that the settings allow may not fit into the memory limit, otherwise None.

    If they do not fit, the kernel kills the process without any message.
    """
    threads = settings.decode_threads or usable_cpus(root)
    needed = PROGRAM_BYTES + pixels_at_once(threads, settings.max_image_pixels) * BYTES_PER_PIXEL
    limit = min(memory_limits(root), default=needed)
    if needed <= limit:
        return None
    return (
        f"the memory limit is {limit >> 20} MiB, but decoding the largest images on {threads} "
        f"{'thread' if threads == 1 else 'threads'} takes up to "
        f"{needed >> 20} MiB: the process may be killed without a message (exit code 137); raise the limit, or lower "
        "max_image_pixels or decode_threads"
    )
