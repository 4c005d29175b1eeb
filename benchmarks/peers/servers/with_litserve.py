"""LitServe: its workers decode, batch and infer."""

import litserve
import numpy as np
from fastapi import HTTPException

from benchmarks.peers.servers.work import HOST, MAX_BATCH, PORT, WAIT_MS, WORKERS, Work
from models.errors import ImageError


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.work = Work()

    def decode_request(self, request):
        try:
            return self.work.pixels(request["image"].file.read())
        except ImageError as error:
            raise HTTPException(422, error.detail) from error

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, images):
        return self.work.logits(images)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return self.work.answer(output)


if __name__ == "__main__":
    api = Classifier(max_batch_size=MAX_BATCH, batch_timeout=WAIT_MS / 1000, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=30)
    server.run(host=HOST, port=PORT, generate_client_file=False, log_level="warning", access_log=False)
