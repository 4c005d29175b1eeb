"""What a request asks for besides the best labels: explanations, features, and what the caller knows about the classes.

1. labels that are not the network's are named;
2. a label may contain commas, and may belong to several classes;
3. priors are shares of all images: the rest is shared equally by the labels that they do not name;
4. anything that this engine or bundle cannot provide is an error that says so.

Everything here raises RequestError `invalid_parameter`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from models.manifest import Manifest
from models.scores.confidence import quantile_for
from service.api.reading.parameters import MOST_SHOWN, as_texts, invalid
from service.classify.classifier import Classifier
from service.classify.outcomes import LABELS_ONLY, Asked

PARAMETERS = ("explain", "embedding", "normalize", "labels", "min_score", "coverage")
_TRUE, _FALSE = ("", "1", "true", "yes", "on"), ("0", "false", "no", "off")
# How far from 1 the sum of priors of all labels may be, for rounding.
SUM_TOLERANCE = 0.001
MOST_NAMED = 10


def read_asked(
    parameters: Mapping[str, str], classifier: Classifier, priors: Mapping[str, float] | None = None
) -> Asked:
    labels = parameters.get("labels")
    given = {name for name in PARAMETERS if name in parameters}
    if not given and priors is None:
        return LABELS_ONLY
    if priors is not None and classifier.bundle.manifest.labels.multi:
        raise invalid("priors are for bundles with one label per image: this bundle's scores are per label")
    asked = Asked(
        cam=_explains(parameters.get("explain")),
        embedding=_wants_embedding(parameters.get("embedding", "false").lower()),
        normalize="normalize" in parameters and _flag("normalize", parameters["normalize"]),
        weights=read_weights(labels, priors, classifier.bundle.labels),
        min_score=read_share("min_score", parameters.get("min_score", "0")),
        coverage=read_coverage(parameters.get("coverage"), classifier.bundle.manifest),
    )
    if asked.coverage is not None and asked.weights is not None:
        raise invalid(
            "coverage holds for the network's own scores, which labels and priors change: give one or the other"
        )
    if asked.features and classifier.head is None:
        manifest = classifier.bundle.manifest
        raise invalid(
            f"{' and '.join(sorted(given & {'explain', 'embedding'}))}: {classifier.engine.name} "
            f"{classifier.engine.precision} has no features of {manifest.name} {manifest.version} (GET /models: "
            "explanations); onnxruntime, openvino and ncnn give them, of bundles that have them: `repvgg convert "
            "--bundle` adds them"
        )
    if asked.normalize and not asked.embedding:
        raise invalid("normalize needs embedding=true")
    return asked


def read_coverage(text: str | None, manifest: Manifest) -> float | None:
    if text is None:
        return None
    if manifest.confidence is None:
        raise invalid(
            f"coverage: {manifest.name} {manifest.version} has no quantiles for sets of labels; `repvgg evaluate "
            "--fit-confidence` writes a version that has"
        )
    coverage = read_share("coverage", text)
    if quantile_for(manifest.confidence.quantiles, coverage) is None:
        raise invalid(
            f"coverage={text[:MOST_SHOWN]}: {manifest.confidence.images} images were fitted on, enough for a coverage "
            f"of up to {max(manifest.confidence.quantiles):g}"
        )
    return coverage


def read_share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise invalid(f"{name}={text[:MOST_SHOWN]} is not a number from 0 to 1")
    return share


def _wants_embedding(text: str) -> bool:
    return text in ("b64", "list") or _flag("embedding", text, ", b64 (the same as true) or list")


def read_asked_in_json(parameters: Mapping[str, Any], classifier: Classifier) -> Asked:
    """Of parameters that are JSON: `labels` may be a list, and `priors` an object or the text of one."""
    texts, labels, priors = as_texts(parameters), parameters.get("labels"), parameters.get("priors")
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        labels = ",".join(labels)
    if labels is not None:
        if not isinstance(labels, str):
            raise invalid("labels is neither a text nor a list of texts")
        texts["labels"] = labels
    if priors is None:
        return read_asked(texts, classifier)
    try:
        return read_asked(texts, classifier, TypeAdapter(dict[str, float]).validate_python(_parsed(priors)))
    except (ValidationError, ValueError):
        raise invalid('priors is not an object like {"cat": 0.9}, or the text of one') from None


def _parsed(priors: Any) -> Any:
    return json.loads(priors) if isinstance(priors, str) else priors


def as_list(parameters: Mapping[str, str]) -> bool:
    """Is the embedding a list of numbers rather than base64?"""
    return parameters.get("embedding", "").lower() == "list"


def _explains(text: str | None) -> bool:
    if text not in (None, "cam"):
        raise invalid(f"explain={text[:MOST_SHOWN]}: the only explanation is cam")
    return text == "cam"


def _flag(name: str, text: str, others: str = "") -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise invalid(f"{name}={text[:MOST_SHOWN]} is not true or false{others}")
    return text.lower() in _TRUE


def read_weights(
    labels: str | None, priors: Mapping[str, float] | None, known: Sequence[str]
) -> NDArray[np.float64] | None:
    """-> the weight of each class (K,), None if neither is given."""
    if labels is None and priors is None:
        return None
    classes: dict[str, list[int]] = {}
    for class_id, label in enumerate(known):
        classes.setdefault(label, []).append(class_id)
    weights = np.ones(len(known))
    if priors is not None:
        weights = _prior_weights(priors, classes, len(known))
    if labels is not None:
        mask = np.zeros(len(known))
        for label in _split(labels, classes):
            mask[classes[label]] = 1.0
        weights *= mask
    if not weights.any():
        raise invalid("priors are 0 for every label that could be returned")
    return weights


def _split(text: str, classes: Mapping[str, object]) -> list[str]:
    """`cat,dog` -> its labels; the longest that fits, since labels like `tench, Tinca tinca` have commas themselves."""
    parts, found, unknown = text.split(","), list[str](), list[str]()
    longest = 1 + max(label.count(",") for label in classes)
    start = 0
    while start < len(parts):
        ends = range(min(len(parts), start + longest), start, -1)
        joined = ((end, ",".join(parts[start:end]).strip()) for end in ends)
        end, label = next(((end, label) for end, label in joined if label in classes), (start + 1, ""))
        if label:
            found.append(label)
        elif name := parts[start].strip():
            unknown.append(name)
        start = end
    _refuse("labels", unknown, classes)
    if not found:
        raise invalid(f"labels is empty: name some of {_shown(list(classes))}")
    return found


def _prior_weights(
    priors: Mapping[str, float], classes: Mapping[str, Sequence[int]], count: int
) -> NDArray[np.float64]:
    """Bayes' rule with other class frequencies than in training, which are assumed to be equal (Saerens, Latinne and
    Decaestecker 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities")."""
    _refuse("priors", [label for label in priors if label not in classes], classes)
    if bad := next((label for label, share in priors.items() if not 0 <= share <= 1), None):
        raise invalid(f"priors: {bad} has {priors[bad]}, which is not a share of all images, 0 to 1")
    rest = 1.0 - sum(priors.values())
    others = [label for label in classes if label not in priors]
    if rest < -SUM_TOLERANCE or (not others and rest > SUM_TOLERANCE):
        raise invalid(f"priors add up to {1 - rest:.4g}; they are shares of all images, which add up to 1")
    unnamed = sum(len(classes[label]) for label in others)
    weights = np.full(count, max(0.0, rest) / max(1, unnamed))
    for label, share in priors.items():
        weights[classes[label]] = share / len(classes[label])
    return weights


def _refuse(what: str, unknown: Sequence[str], classes: Mapping[str, object]) -> None:
    if unknown:
        raise invalid(f"{what}: the network has no {_shown(unknown)}; it has: {_shown(list(classes))}")


def _shown(names: Sequence[str]) -> str:
    more = f" ... ({len(names)} in total)" if len(names) > MOST_NAMED else ""
    return ", ".join(name[:MOST_SHOWN] for name in names[:MOST_NAMED]) + more
