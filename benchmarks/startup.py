"""Time from the start of `repvgg serve` to its first answer, by phase; optionally compared with other checkouts.

python -m benchmarks.startup [--beside CHECKOUT ...] [--rounds N] [-- FLAGS OF SERVE]

Medians in seconds. The phases come from the server's log: each one ends with a certain line. An engine's phase ends
when it has passed the golden check, so measuring its speed counts towards the next phase.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TextIO

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "models" / "samples" / "school_bus.jpg"
# Pattern of a log line -> the phase that ends with it.
ENDS = {
    r"listening on": "imports, socket",
    r"(\S+ \S+) passed the golden check": r"\1",
    r"chose": "choice",
    r"serving": "batch sizes",
}
TOTAL = "first answer"


def start(checkout: Path, flags: Sequence[str]) -> dict[str, float]:
    """Start a server and wait for its first answer -> the seconds of each phase and in total."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--drain-seconds", "0", *flags]
    with tempfile.TemporaryFile("w+") as log:
        began = time.time()
        process = subprocess.Popen(command, cwd=checkout, stdout=log)
        try:
            while not answers(port):
                if process.poll() is not None:
                    raise SystemExit(f"the server of {checkout} did not start")
                time.sleep(0.01)
            total = time.time() - began
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
        return {**phases(log, began), TOTAL: total}


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/classify", IMAGE.read_bytes(), {"Content-Type": "image/jpeg"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def phases(log: TextIO, began: float) -> dict[str, float]:
    log.seek(0)
    seconds = {}
    for line in map(json.loads, log):
        ended = next((match.expand(name) for end, name in ENDS.items() if (match := re.match(end, line["msg"]))), None)
        if ended:
            now = datetime.fromisoformat(line["ts"].replace("Z", "+00:00")).timestamp()
            seconds[ended] = now - began
            began = now
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--beside", type=Path, nargs="+", default=[], metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="flags of serve, after --")
    arguments = parser.parse_args(argv)
    checkouts = [ROOT, *arguments.beside]
    rounds = [[start(checkout, arguments.flags) for checkout in checkouts] for _ in range(arguments.rounds)]
    for checkout, starts in zip(checkouts, zip(*rounds, strict=True), strict=True):
        print(checkout)
        for phase in dict.fromkeys(phase for one in starts for phase in one):
            seconds = [one[phase] for one in starts if phase in one]
            print(f"  {phase:<20} {median(seconds):5.2f}  ({min(seconds):.2f} to {max(seconds):.2f})")
        ratio = median(one[TOTAL] / ours[TOTAL] for one, (ours, *_) in zip(starts, rounds, strict=True))
        print(f"  {'ratio':<20} {ratio:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
