"""Why an answer was wrong: the contribution of each part of a photo to the predicted label.

The classifier that gave the answer explains it (under cross-validation, that of the fold): `logit = sum(grid) + bias`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.explanation.head import Cam, Head, read_head
from models.explanation.overlay import over
from models.preprocess import decode, preprocess, read_file, seen_box
from models.store import Bundle
from training.own.backbone import session
from training.own.classifier.figures import Answers
from training.own.seen import Seen

LONGEST = 200  # pixels
Heads = Mapping[int, tuple[NDArray[np.bool_], Head]]


def heat_maps(bundle: Bundle, seen: Seen, answers: Answers, heads: Heads, most: int) -> dict[int, bytes]:
    """Photo, as an index into those seen -> a JPEG, for the worst mistakes; empty for a bundle without features.
    `heads` as in publishing.int8."""
    artifact = bundle.artifact(("onnx",), "fp32")
    own = read_head(bundle, artifact)
    if own is None or artifact.features is None:
        return {}
    network, output = session(bundle.path(artifact).read_bytes()), artifact.features.output
    ids = [bundle.labels.index(name) for name in seen.classes]
    found = {}
    for row in answers.mistakes[:most]:
        index, given = int(answers.photos[row]), int(answers.given[row])
        head, class_id = _answered_by(row, heads) or own, given if heads else ids[given]
        encoded = read_file(seen.photos[index].path)
        tensor, photo = preprocess(encoded, bundle.manifest.preprocess), decode(encoded)
        (features,) = network.run([output], {artifact.input: tensor[None]})
        logits = head.logits(features[0]).astype(np.float32)
        box = seen_box(photo.size, bundle.manifest.preprocess)
        cam: Cam = head.explain(features[0], logits, class_id, box)
        content = io.BytesIO()
        over(photo, cam, LONGEST).save(content, "JPEG", quality=85)
        found[index] = content.getvalue()
    return found


def _answered_by(row: int, heads: Heads) -> Head | None:
    return next((head for answered, head in heads.values() if answered[row]), None)
