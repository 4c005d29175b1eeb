"""The golden check: does this engine compute the network that was trained?"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from models import golden
from models.errors import BundleError, ContractError
from models.explanation.head import Head, read_head, tolerance
from models.store import Bundle
from service.engines.artifacts import choose_artifact
from service.engines.base import Engine, explaining
from service.errors import GoldenCheckFailed

log = logging.getLogger(__name__)

FAKE = "fake"


def check_engine(engine: Engine, bundle: Bundle) -> golden.GoldenReport | None:
    """Does the engine reproduce the bundle's golden logits? There is no report on the fake engine. Blocks.

    Raises GoldenCheckFailed, also if its features do not explain its logits, or BundleError for an engine of another
    input size or number of classes.
    """
    expected = (bundle.manifest.preprocess.input_size, bundle.manifest.network.num_classes)
    if (engine.input_size, engine.num_classes) != expected:
        raise BundleError(
            f"input size and number of classes are {expected} in {bundle.folder}, "
            f"but {(engine.input_size, engine.num_classes)} in the engine {engine.name}"
        )
    if engine.name == FAKE:
        log.warning("the fake engine answers: no network is loaded and no golden logits are checked")
        return None
    try:
        report = check_golden(engine, bundle)
    except ContractError:
        raise
    except Exception as error:
        raise GoldenCheckFailed(f"the engine {engine.name} failed on the golden images: {error}") from error
    if not report.ok:
        raise GoldenCheckFailed(
            f"the engine {engine.name} {engine.precision} is up to {report.max_delta:.3g} off the golden logits of "
            f"{bundle.folder}, {report.tolerance:.3g} is allowed: this is not the network that was trained"
        )
    log.info(
        "%s %s passed the golden check: %.3g off, %.3g allowed",
        engine.name,
        engine.precision,
        report.max_delta,
        report.tolerance,
    )
    return report


def read_engine_head(engine: Engine, bundle: Bundle) -> Head | None:
    """What explains this engine's answers; None if it gives no features. Raises BundleError."""
    if not explaining(engine):
        return None
    return read_head(bundle, choose_artifact(engine.name, bundle, engine.precision))


def check_golden(engine: Engine, bundle: Bundle) -> golden.GoldenReport:
    """The golden check and, of an engine that gives features, whether they explain its logits, in the same calls.

    Raises GoldenCheckFailed if they do not.
    """
    source, head = explaining(engine), read_engine_head(engine, bundle)
    if source is None or head is None:
        return golden.check(bundle, engine.precision, engine.infer)
    # Below fp32 the last step is rounded too.
    allowed = None if engine.precision == "fp32" else bundle.manifest.golden.tolerance.get(engine.precision)

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits, features = source.infer_with_features(images)
        delta, limit = head.delta(features, logits), allowed or tolerance(logits)
        if not delta <= limit:
            raise GoldenCheckFailed(
                f"its features give logits that are {delta:.3g} off its own, {limit:.3g} is allowed: the answers of "
                f"{bundle.folder} cannot be explained"
            )
        return logits

    return golden.check(bundle, engine.precision, infer)
