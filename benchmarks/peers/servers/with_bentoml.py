"""BentoML: a service with adaptive batching, a list of images in and a list of answers out."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from bentoml.exceptions import InvalidArgument
from PIL.Image import Image

from benchmarks.peers.servers.work import HOST, MAX_BATCH, PORT, WORKERS, Work
from models.errors import ImageError
from models.preprocess import read_pixels, to_tensor

# Above any latency here: BentoML rejects what it expects to take longer, but only the load's deadline should decide.
LATENCY_MS = 10_000


@bentoml.service(workers=WORKERS, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self):
        self.work = Work()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=LATENCY_MS)
    def classify(self, images: list[Image]) -> list[dict]:
        try:
            pixels = [to_tensor(read_pixels(image), self.work.spec) for image in images]
        except ImageError as error:
            raise InvalidArgument(error.detail) from error
        return [self.work.answer(row) for row in self.work.logits(np.stack(pixels))]


if __name__ == "__main__":
    command = str(Path(sys.executable).parent / "bentoml")
    name = "benchmarks.peers.servers.with_bentoml:Classifier"
    os.execv(command, [command, "serve", name, "--working-dir", str(Path.cwd()), "--host", HOST, "--port", str(PORT)])
