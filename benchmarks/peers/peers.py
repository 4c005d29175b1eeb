"""The servers that are compared: how each is installed, started, asked and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.load.generator import ask_once
from service.load.wire import Address, Broken, PreparedRequest, Reply
from service.machine.limits import usable_cpus

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CPUS = usable_cpus()
MODEL = "peer"  # as Triton is told
BOUNDARY = "an-image-never-holds-this-line"
START_S, STOP_S = 120.0, 20.0
# No usage reports during a measurement.
EVERY = {
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONPATH": str(ROOT),
}


class Unusable(Exception):
    """A server that cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Server:
    """`part`: the name of the image's part in a multipart body; `tensor`: the name of the input that takes its bytes,
    in the Open Inference Protocol; without either the body is the image itself.

    `settings` of the peers are those with the most images/s on two cores, of those tried: workers 1 to 3,
    threads 1 and 2, batches of 1 to 16 and waits of 0 to 5 ms.
    """

    name: str
    command: Sequence[str]
    settings: Mapping[str, object]
    part: str = ""
    tensor: str = ""

    @property
    def engine(self) -> str:
        """`engine/precision`, by which its in-process limit is found."""
        return "/".join(self.name.removeprefix("ours ").split("/")[:2]) if self.ours else "onnxruntime/fp32"

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours ")

    def prepare(self, address: Address, photo: bytes, timeout_ms: int) -> PreparedRequest:
        headers, target = [("Content-Type", "application/octet-stream")], "/classify"
        if self.part:
            headers = [("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")]
            part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{self.part}"; filename="photo.jpg"\r\n'
            photo = f"{part}Content-Type: image/jpeg\r\n\r\n".encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()
        elif self.tensor:
            data = len(photo).to_bytes(4, "little") + photo
            tensor = {"name": self.tensor, "shape": [1, 1], "datatype": "BYTES"}
            head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]}).encode()
            headers.append(("Inference-Header-Content-Length", str(len(head))))
            photo, target = head + data, f"/v2/models/{MODEL}/infer"
        return PreparedRequest(address, f"{target}?timeout_ms={timeout_ms}" if self.ours else target, headers, photo)


def ours(engine: str, model: Path) -> Server:
    """Our own service as anybody would start it. `engine`: `onnxruntime/fp32`, or `ncnn/fp32/8` for at most 8 images in
    a batch."""
    name, precision, *batch = engine.split("/")
    command = ["-m", "service", "serve", "--model", str(model), "--engine", name, "--precision", precision]
    command += [argument for size in batch for argument in ("--max-batch-size", size)]
    return Server(f"ours {engine}", [sys.executable, *command, "--port"], {})


def python_of(peer: str) -> Path:
    return HERE / ".venvs" / peer / "bin" / "python"


def _peer(name: str, part: str = "", tensor: str = "", **settings: object) -> Server:
    command = [str(python_of(name)), "-m", f"benchmarks.peers.servers.with_{name}"]
    return Server(name, command, settings, part, tensor)


PEERS = {
    peer.name: peer
    for peer in (
        _peer("fastapi", WORKERS=CPUS, THREADS=CPUS, SPIN=0),
        _peer("litserve", "image", WORKERS=CPUS, THREADS=1, MAX_BATCH=8, WAIT_MS=2),
        _peer("mosec", WORKERS=CPUS, THREADS=1, MAX_BATCH=4, WAIT_MS=1),
        _peer("bentoml", "images", WORKERS=CPUS, THREADS=1, MAX_BATCH=8),
        _peer("triton", tensor="image", NAME=MODEL, WORKERS=CPUS, THREADS=1, MAX_BATCH=8, WAIT_MS=0),
    )
}


def requirements(peer: str) -> list[str]:
    return (HERE / "requirements" / f"{peer}.txt").read_text().split()


def set_up(peer: str) -> None:
    """Its own virtual environment, once. Raises Unusable."""
    python, wanted = python_of(peer), "\n".join(requirements(peer))
    done = python.parents[1] / ".set-up"
    if done.is_file() and done.read_text() == wanted:
        return
    print(f"installing {peer}", file=sys.stderr, flush=True)
    make = [sys.executable, "-m", "venv", "--clear", str(python.parents[1])]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements(peer)]
    for command in (make, pip):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise Unusable(f"cannot be installed: {(ended.stderr.strip() or 'no reason given').splitlines()[-1]}")
    done.write_text(wanted)


class Running:
    """A started server; a context that ends it. Its output goes to `log`."""

    def __init__(self, server: Server, model: Path, log: Path) -> None:
        self.server = server
        self.log = log
        self.address = Address("127.0.0.1", free_port())
        settings = {name: str(value) for name, value in server.settings.items()}
        port = str(self.address.port)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*server.command, *([port] if server.ours else [])],
                cwd=ROOT,
                env=os.environ | EVERY | settings | {"MODEL": str(model), "PORT": port},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Running:
        return self

    def wait(self, request: PreparedRequest) -> None:
        """Until it answers. Raises Unusable."""
        give_up_at = time.monotonic() + START_S
        while time.monotonic() < give_up_at:
            if self._process.poll() is not None:
                raise Unusable(f"ended with {self._process.returncode} by itself, see {self.log}")
            with suppress(Broken):
                if ask_once(self.address, request, START_S).status == 200:
                    return
            time.sleep(0.2)
        raise Unusable(f"gave no answer within {START_S:g} s, see {self.log}")

    @property
    def cpu_s(self) -> float:
        """User and system seconds of the process and its descendants, ended ones included, from proc(5)."""
        parents, ticks = {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # a process that has just ended
                number, _, rest = path.read_text().partition(" ")
                fields = rest.rpartition(")")[2].split()
                parents[int(number)], ticks[int(number)] = int(fields[1]), sum(map(int, fields[11:15]))
        family = {self._process.pid}
        while born := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= born
        return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what is left of its group, itself included
        self._process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def best(reply: Reply) -> tuple[int, float]:
    """Class and score of the best label in any server's answer. Raises Unusable."""
    if reply.status != 200:
        raise Unusable(f"it answers {reply.status}")
    answer = json.loads(reply.body)
    if "outputs" in answer:  # the Open Inference Protocol's
        values = {output["name"]: output["data"][0] for output in answer["outputs"]}
        return values["class_id"], values["score"]
    if isinstance(answer, list):  # BentoML's, of a batch of one
        answer = answer[0]
    first = (answer["results"][0] if "results" in answer else answer)["predictions"][0]
    return first["class_id"], first["score"]
