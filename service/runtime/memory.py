"""Warns of a memory limit that decoding the largest allowed images may exceed, and names the way out."""

from __future__ import annotations

from pathlib import Path

from service.machine.limits import memory_limits, usable_cpus
from service.settings import MEBIBYTE, Settings

# Measured in the container with the shipped network: 85 to 93 MiB before the first image; 4.0 bytes a pixel while a
# plain image is decoded, 8.0 for one with transparency, of 16 bits or to be turned.
PROGRAM_BYTES = 100 * MEBIBYTE
BYTES_A_PIXEL = 8


def memory_shortage(settings: Settings, root: Path = Path("/")) -> str | None:
    """A sentence for people where the largest images that the settings allow may not fit into the memory limit.

    The kernel then ends the process, which cannot say a word any more.
    """
    threads = settings.decode_threads or usable_cpus(root)
    needed = PROGRAM_BYTES + threads * settings.max_image_pixels * BYTES_A_PIXEL
    limit = min(memory_limits(root), default=needed)
    if needed <= limit:
        return None
    return (
        f"the memory limit is {limit >> 20} MiB, and decoding {threads} of the largest images at once takes up to "
        f"{needed >> 20} MiB: the process may be killed without a word (exit code 137); raise the limit, or lower "
        "max_image_pixels or decode_threads"
    )
