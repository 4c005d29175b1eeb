"""The cost of an idle server, and how much clients that disconnect delay the next request.

python -m benchmarks.idle IMAGE [--model BUNDLE] [--engine NAME] [--precision P] [--seconds S] [--leavers N]
                          [--rounds N]

First, the CPU time of an idle `repvgg serve` as a share of one core. Then, in each round: one request alone; then N
requests on as many connections, which are all closed as soon as the server has the images, followed at once by one more
request. The result is the delay of that last request, in multiples of the engine time of one image.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.front_door import process_cpu_s
from benchmarks.serving import served

SETTLING_S = 2.0  # after the start, and after disconnects
HEAD_START_S = 0.02  # from the last byte of the last image until the connections close


def ask(port: int, image: bytes) -> tuple[float, float]:
    """-> latency and engine time, both in ms."""
    began = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/classify", image, {"Content-Type": "image/jpeg"})
    reply = connection.getresponse()
    answer = reply.read()
    took_ms = (time.perf_counter() - began) * 1000
    connection.close()
    if reply.status != 200:
        raise SystemExit(answer.decode())
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", reply.headers["Server-Timing"]))
    return took_ms, float(stages["infer"])


def leave(port: int, images: list[bytes]) -> None:
    """Send each image over its own connection, and close them all without waiting for answers."""
    connections = []
    for image in images:
        connection = socket.create_connection(("127.0.0.1", port))
        head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
        connection.sendall(head.encode() + image)
        connections.append(connection)
    time.sleep(HEAD_START_S)
    for connection in connections:
        connection.close()


def cancelled(port: int) -> float:
    """The number of requests whose client disconnected, as counted by the server."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(float(value) for value in re.findall(r"(?m)^repvgg_requests_cancelled_total\{.*\} (\S+)", text))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="repvgg-small-tinyimagenet", metavar="BUNDLE")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--leavers", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    image = flags.image.read_bytes()
    # Trailing bytes make each image different, so that no request shares the answer of another.
    others = [image + number.to_bytes(4, "big") for number in range(flags.leavers)]
    with served("--model", flags.model, "--engine", flags.engine, "--precision", flags.precision) as server:
        time.sleep(SETTLING_S)
        before_s = process_cpu_s(server.process.pid)
        time.sleep(flags.seconds)
        idle = (process_cpu_s(server.process.pid) - before_s) / flags.seconds
        print(f"idle for {flags.seconds:g} s: {idle:.2%} of one core", flush=True)
        ask(server.port, image)
        delays = []
        for _ in range(flags.rounds):
            alone_ms, engine_ms = ask(server.port, image)
            seen = cancelled(server.port)
            leave(server.port, others)
            behind_ms, _ = ask(server.port, image)
            time.sleep(SETTLING_S)
            left = cancelled(server.port) - seen
            delays.append((behind_ms - alone_ms) / engine_ms)
            print(
                f"alone {alone_ms:.1f} ms, after {flags.leavers} disconnects ({left:g} counted) {behind_ms:.1f} ms: "
                f"delayed by {delays[-1]:.2f} times the {engine_ms:.1f} ms in the engine",
                flush=True,
            )
        print(json.dumps({"idle_share": idle, "median_delay": median(delays), "worst_delay": max(delays)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
