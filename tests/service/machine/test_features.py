from __future__ import annotations

from pathlib import Path

import pytest

from service.machine.features import BF16, INT8, cpu_flags

X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp bf16\n"


@pytest.mark.parametrize(
    ("text", "flags"),
    [(X86, {"fpu", "avx2", "avx512_bf16", "avx512_vnni"}), (ARM, {"fp", "asimd", "asimddp", "bf16"}), ("", set())],
)
def test_the_flags_are_those_of_the_first_cpu(tmp_path: Path, text: str, flags: set[str]) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    assert cpu_flags(tmp_path) == flags
    assert bool(BF16 & flags) == bool(INT8 & flags) == bool(text)


def test_a_system_without_cpuinfo_has_no_flags(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path) == frozenset()
