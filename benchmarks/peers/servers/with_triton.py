"""Triton: HTTP and batching in C++, by PyTriton; Python processes that decode and infer."""

import os
import sysconfig

import numpy as np
from pytriton.decorators import batch
from pytriton.exceptions import PyTritonInvalidOperationError
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.servers.work import HOST, MAX_BATCH, PORT, WAIT_MS, WORKERS, Work
from models.errors import ImageError

# Triton's processes look for the library of this interpreter by its name.
folders = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))


def worker():
    work = Work()

    @batch
    def infer(image):
        try:
            pixels = np.stack([work.pixels(encoded) for (encoded,) in image])
        except ImageError as error:
            raise PyTritonInvalidOperationError(error.detail) from error
        best = [work.answer(row)["predictions"] for row in work.logits(pixels)]
        return {
            "class_id": np.array([[one["class_id"] for one in row] for row in best], np.int32),
            "score": np.array([[one["score"] for one in row] for row in best], np.float32),
        }

    return infer


if __name__ == "__main__":
    config = TritonConfig(http_address=HOST, http_port=PORT, http_thread_count=2, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name=os.environ["NAME"],
            infer_func=[worker() for _ in range(WORKERS)],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[
                Tensor(name="class_id", dtype=np.int32, shape=(-1,)),
                Tensor(name="score", dtype=np.float32, shape=(-1,)),
            ],
            config=ModelConfig(
                max_batch_size=MAX_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=round(WAIT_MS * 1000)),
            ),
        )
        triton.serve()
