from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.runtime.memory import memory_shortage
from service.settings import Settings

WriteRoot = Callable[[dict[str, str]], Path]


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/pod/main\n", "sys/fs/cgroup/pod/memory.max": "268435456\n"},
        {"proc/self/cgroup": "4:memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n"},
    ],
)
def test_a_memory_limit_too_small_for_the_largest_images_is_reported_with_a_solution(
    write_root: WriteRoot, tmp_path: Path, files: dict[str, str]
) -> None:
    write_root(files)
    told = memory_shortage(Settings(decode_threads=2), tmp_path)
    assert told is not None
    assert "the memory limit is 256 MiB, but decoding the largest images on 2 threads takes up to 847 MiB" in told
    assert "lower max_image_pixels or decode_threads" in told
    assert memory_shortage(Settings(decode_threads=1, max_image_pixels=10_000_000), tmp_path) is None


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
        {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
    ],
)
def test_there_is_no_warning_without_a_memory_limit(write_root: WriteRoot, files: dict[str, str]) -> None:
    assert memory_shortage(Settings(), write_root(files)) is None
