"""The golden check: does this engine compute the network that was trained?"""

from __future__ import annotations

import logging

from models import golden
from models.errors import BundleError, ContractError
from models.store import Bundle
from service.engines.base import Engine
from service.errors import GoldenCheckFailed

log = logging.getLogger(__name__)

FAKE = "fake"


def check_engine(engine: Engine, bundle: Bundle) -> golden.GoldenReport | None:
    """Does the engine reproduce the bundle's golden logits? There is no report on the fake engine. Blocks.

    Raises GoldenCheckFailed, or BundleError for an engine of another input size or number of classes.
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
        report = golden.check(bundle, engine.precision, engine.infer)
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
