"""Throughput of one process and of several when the event loop is the bottleneck: the engine computes nothing.

python -m benchmarks.workers [--workers 1 2] [--clients 32] [--rounds N] [--seconds S]

Each round starts a fresh server for each number of workers and loads it from raw sockets with one request in flight
each. On a shared machine only the ratios within one run can be compared. What is comparable between runs is the CPU
time of the event loop's thread per request, which limits the throughput of a process whatever the number of cores. The
busiest worker's share of the requests shows how evenly connections are distributed.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.serving import served

IMAGE = Path(__file__).parents[1] / "models" / "samples" / "school_bus.jpg"


def request() -> bytes:
    image = IMAGE.read_bytes()
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
    return head.encode() + image


def load(port: int, clients: int, seconds: float) -> int:
    """Closed loop -> the number of answers with status 200."""
    message, answered = request(), 0
    give_up_at = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = socket.create_connection(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(message)
        while time.monotonic() < give_up_at:
            for key, _ in selector.select(timeout=1.0):
                connection = key.fileobj  # type: ignore[assignment]
                answered += connection.recv(65536).startswith(b"HTTP/1.1 200")
                connection.sendall(message)
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return answered


def measure(workers: int, clients: int, seconds: float) -> tuple[float, float, float]:
    """-> requests/s, CPU milliseconds of the event loops per request, and the busiest worker's share of requests."""
    # All requests send the same image, and each one must be computed.
    with served("--engine", "fake", "--single-flight", "off", workers=workers) as server:
        cpu_s = main_threads_cpu_s(server.process.pid)
        answered = load(server.port, clients, seconds)
        cpu_s = main_threads_cpu_s(server.process.pid) - cpu_s
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        shares = Counter(line.get("worker") for line in server.lines() if line["logger"] == "service.access")
    return answered / seconds, cpu_s / answered * 1000, max(shares.values()) / sum(shares.values())


def main_threads_cpu_s(pid: int) -> float:
    """CPU time of the main threads, which run the event loops, of a process and its children; sched-stats.txt."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return sum(int(Path(f"/proc/{each}/schedstat").read_text().split()[0]) for each in (pid, *children)) / 1e9


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args(argv)
    rounds = [
        [measure(workers, arguments.clients, arguments.seconds) for workers in arguments.workers]
        for _ in range(arguments.rounds)
    ]
    for workers, turns in zip(arguments.workers, zip(*rounds, strict=True), strict=True):
        speed, cpu_ms, share = (median(values) for values in zip(*turns, strict=True))
        ratio = median(turn[0] / base[0] for turn, (base, *_) in zip(turns, rounds, strict=True))
        print(
            f"{workers} workers: {speed:6.0f} requests/s, {ratio:.2f} of {arguments.workers[0]}; "
            f"event loops {cpu_ms:.2f} ms CPU per request; the busiest worker answered {share:.0%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
