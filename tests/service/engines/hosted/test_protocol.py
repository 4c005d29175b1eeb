from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from models.errors import BundleError
from service.engines.hosted.protocol import Channel, SharedTensors, error_fields, raise_error


def test_two_mappings_show_the_same_tensors_and_grow() -> None:
    file = os.memfd_create("tensors")
    ours, theirs = SharedTensors(file, 8, 5), SharedTensors(file, 8, 5)
    for images in (2, 7, 1):
        pixels, logits = ours.views(images)
        assert (pixels.shape, logits.shape) == ((images, 3, 8, 8), (images, 5))
        pixels[...] = np.random.default_rng(images).random(pixels.shape, np.float32)
        logits[...] = images
        for mine, seen in zip((pixels, logits), theirs.views(images), strict=True):
            np.testing.assert_array_equal(mine, seen)
    os.close(file)


def test_objects_arrive_in_order_until_the_other_side_closes() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    ours.send(images=3)
    ours.send()
    assert [theirs.receive(), theirs.receive()] == [{"images": 3}, {}]
    ours.close()
    assert theirs.receive() is None
    theirs.close()


def test_errors_keep_their_text_and_known_ones_their_class() -> None:
    raise_error({"images": 3})
    with pytest.raises(BundleError, match=r"^no artifact$"):
        raise_error(error_fields(BundleError("no artifact")))
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: by zero$"):
        raise_error(error_fields(ZeroDivisionError("by zero")))
