"""What this CPU can compute fast, from /proc/cpuinfo."""

from __future__ import annotations

from pathlib import Path

# Each of these multiplies bf16 in hardware; without one, bf16 is slower than fp32. Names as in Linux, x86 and Arm.
BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
# Each of these multiplies int8 several times as fast as fp32.
INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """The flags of the first CPU, as Linux names them; none if there is no /proc/cpuinfo."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return frozenset()
