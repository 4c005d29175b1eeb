"""mosec: HTTP and batching in Rust; one stage of Python processes that decode and infer."""

import sys

import numpy as np
from mosec import Server, ValidationError, Worker

from benchmarks.peers.servers.work import HOST, MAX_BATCH, PORT, WAIT_MS, WORKERS, Work
from models.errors import ImageError


class Classifier(Worker):
    def __init__(self):
        super().__init__()
        self.work = Work()

    def deserialize(self, data):
        try:
            return self.work.pixels(bytes(data))  # it comes as a bytearray
        except ImageError as error:
            raise ValidationError(error.detail) from error

    def forward(self, data):
        return [self.work.answer(row) for row in self.work.logits(np.stack(data))]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", HOST, "--port", str(PORT), "--timeout", "30000", "--log-level", "warning"]
    server = Server()
    server.append_worker(
        Classifier, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=round(WAIT_MS), timeout=30, route="/classify"
    )
    server.run()
