"""A long run with many faults: is any request lost or any answer wrong, and does memory grow?

python -m benchmarks.soak FOLDER [--requests N] [--clients N] [--model BUNDLE] [--precision P] [--swaps N]

Many clients send the images of FOLDER to `repvgg serve` in random order. 1 % of the requests contain a damaged image,
1 % are aborted before their answer, and 1 % have a deadline of a few milliseconds, whose refusals are ignored: the
next request follows at once. 0.1 % are bombs, small files of 50 megapixels, and 0.1 % come from a client that reads
its answer only after a while. Every answer is compared with the one computed here without a server. `--swaps` reloads
the model that many times during the run, alternating between version 1 and 2. The exit code is 1 if anything went
wrong: an unexpected status, label or score, a request without an answer, an image left in a queue, or memory that
grew by more than 5 % after the first fifth of the run: in each fifth the least counts, since a bomb takes 200 to 400
MB while it is decoded.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks.serving import resident_mb, served
from models.preprocess import images_in, preprocess
from models.scores.topk import Prediction, scores_of, top_k
from models.store import open_bundle
from service.engines.loading import load_engine
from service.load.wire import Address, Broken, Pool, PreparedRequest, Reply

SHARE = 0.01  # of each kind of fault
RARE = 0.001  # of those that take the server long, or the client
SLOW_S = 2.0
GIVE_UP_AFTER_S = 30.0
SCORE_TOLERANCE = 0.002  # kernels round differently for other batch sizes
GROWTH = 1.05
ALLOWED = {"good": {200}, "damaged": {200, 422}, "hurried": {200, 503, 504}, "bomb": {200, 503, 504}}


def bomb() -> bytes:
    """50 megapixels in 2 kB."""
    file = io.BytesIO()
    Image.new("RGB", (10_000, 5_000)).save(file, "WEBP", lossless=True)
    return file.getvalue()


@dataclass
class Soak:
    """The requests, the expected answers, and the outcomes."""

    address: Address
    photos: list[bytes]
    expected: list[Prediction]
    remaining: int
    random: random.Random = field(default_factory=lambda: random.Random(1))
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    bomb: bytes = field(default_factory=bomb)

    async def client(self, pool: Pool) -> None:
        while self.remaining > 0:
            self.remaining -= 1
            draw, index = self.random.random(), self.random.randrange(len(self.photos))
            if draw < SHARE:
                await self.leave(index)
            elif draw < 2 * SHARE:
                await self.ask(pool, "damaged", index, self.damaged(self.photos[index]))
            elif draw < 3 * SHARE:
                await self.ask(pool, "hurried", index, self.photos[index], self.random.randrange(1, 10))
            elif draw < 3 * SHARE + RARE:
                await self.ask(pool, "bomb", index, self.bomb)
            elif draw < 3 * SHARE + 2 * RARE:
                await self.read_late(index)
            else:
                await self.ask(pool, "good", index, self.photos[index])

    def damaged(self, image: bytes) -> bytes:
        """Truncated at its end or at its beginning."""
        cut = self.random.randrange(1, len(image))
        return image[:cut] if self.random.random() < 0.5 else image[cut:]

    async def ask(self, pool: Pool, kind: str, index: int, body: bytes, timeout_ms: int = 10_000) -> None:
        give_up_at = asyncio.get_running_loop().time() + GIVE_UP_AFTER_S
        try:
            reply = await pool.ask(self.prepared(body, timeout_ms), give_up_at)
        except Broken as error:
            self.wrong.append(f"{kind}: {error}")
            return
        self.seen[f"{kind} {reply.status}"] += 1
        if reply.status not in ALLOWED[kind]:
            self.wrong.append(f"{kind}: {reply.status} {reply.body.decode(errors='replace')[:200]}")
        elif reply.status == 200 and kind in ("good", "hurried"):
            self.compare(index, reply)

    def compare(self, index: int, reply: Reply) -> None:
        found, wanted = json.loads(reply.body)["results"][0]["predictions"][0], self.expected[index]
        near = abs(found["score"] - wanted.score) <= SCORE_TOLERANCE
        if not near or (found["label"] != wanted.label and wanted.score > 0.5 + SCORE_TOLERANCE):
            self.wrong.append(f"image {index}: {found}, not {wanted}")

    async def read_late(self, index: int) -> None:
        """Send the image again and again, and read nothing for a while."""
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port, limit=1024)
        body = self.photos[index]
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head.encode() + body) * 8)
        await asyncio.sleep(SLOW_S)
        if not (await reader.readline()).startswith(b"HTTP/1.1 200"):
            self.wrong.append("a slow reader got no answer")
        writer.transport.abort()
        self.seen["slow reader"] += 1

    async def leave(self, index: int) -> None:
        """Send over a separate connection, and close it before the answer or in the middle of the request."""
        _, writer = await asyncio.open_connection(self.address.host, self.address.port)
        body = self.photos[index]
        sent = body if self.random.random() < 0.5 else body[: len(body) // 2]
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + sent)
        await asyncio.sleep(self.random.random() * 0.02)
        writer.transport.abort()
        self.seen["left"] += 1

    def prepared(self, body: bytes, timeout_ms: int) -> PreparedRequest:
        headers = [("Content-Type", "application/octet-stream")]
        return PreparedRequest(self.address, f"/classify?top_k=1&timeout_ms={timeout_ms}", headers, body)


def get(url: str, method: str = "GET") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=120) as reply:
        return str(reply.read().decode())


def gauges(url: str) -> dict[str, float]:
    pairs = (line.rsplit(" ", 1) for line in get(f"{url}/metrics").splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def versions_of(model: str, store: Path) -> Path:
    """Two copies of the bundle as versions 1 and 2."""
    bundle = open_bundle(model)
    for version in ("1", "2"):
        folder = store / bundle.manifest.name / version
        shutil.copytree(bundle.folder, folder)
        manifest = json.loads((folder / "manifest.json").read_text()) | {"version": version}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return store / bundle.manifest.name


async def run(soak: Soak, url: str, pid: int, clients: int, swaps: int) -> list[float]:
    """-> the server's resident memory in MB, sampled twice a second."""
    sizes: list[float] = []
    total = soak.remaining
    pool = Pool(soak.address)
    sending = asyncio.gather(*(soak.client(pool) for _ in range(clients)))
    swapped = 0
    while not sending.done():
        await asyncio.sleep(0.5)
        sizes.append(resident_mb(pid))
        if swapped < swaps and total - soak.remaining > (swapped + 1) * total / (swaps + 1):
            swapped += 1
            try:
                await asyncio.to_thread(get, f"{url}/models/reload?version={1 + swapped % 2}", "POST")
            except OSError as error:
                soak.wrong.append(f"swap {swapped}: {error}")
    await sending
    pool.close()
    return sizes


def expected_of(model: str, engine: str, precision: str, photos: list[bytes]) -> list[Prediction]:
    bundle = open_bundle(model)
    loaded = load_engine(engine, bundle, precision, threads=1)
    tensors = (preprocess(photo, bundle.manifest.preprocess) for photo in photos)
    return [top_k(scores_of(loaded.infer(tensor[None])[0], bundle.manifest), bundle.labels, 1)[0] for tensor in tensors]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="repvgg-small-tinyimagenet", metavar="BUNDLE")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--swaps", type=int, default=0)
    flags = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(images_in(flags.folder))[: flags.images]]
    expected = expected_of(flags.model, flags.engine, flags.precision, photos)
    with tempfile.TemporaryDirectory() as store:
        model = versions_of(flags.model, Path(store)) if flags.swaps else flags.model
        with served("--model", str(model), "--engine", flags.engine, "--precision", flags.precision) as server:
            wrong = soaked(flags, server.process.pid, server.url, photos, expected)
        print(f"the server ended with {server.process.returncode}")
    return wrong


def soaked(flags: argparse.Namespace, pid: int, url: str, photos: list[bytes], expected: list[Prediction]) -> int:
    soak = Soak(Address.of(url), photos, expected, flags.requests)
    began = time.monotonic()
    sizes = asyncio.run(run(soak, url, pid, flags.clients, flags.swaps))
    seconds = time.monotonic() - began
    time.sleep(1.0)  # for aborted requests that are still in progress
    left = gauges(url)
    if left["repvgg_queue_depth"] or left['repvgg_engine_slots{state="busy"}']:
        soak.wrong.append("images remain in the queue or in the engine")
    fifths = [min(sizes[len(sizes) * i // 5 : len(sizes) * (i + 1) // 5 + 1]) for i in range(5)]
    if fifths[-1] > GROWTH * fifths[0]:
        soak.wrong.append(f"memory grew from {fifths[0]:.0f} to {fifths[-1]:.0f} MB")
    by_fifths = ", ".join(f"{size:.0f}" for size in fifths)
    print(f"{flags.requests} requests in {seconds:.0f} s; memory by fifths: {by_fifths} MB")
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(soak.seen.items())))
    print("\n".join(["nothing went wrong"] if not soak.wrong else [f"WRONG: {text}" for text in soak.wrong[:20]]))
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
