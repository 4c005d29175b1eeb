"""Every engine in every precision. The rows follow from the table of engines: a new one needs nothing here."""

from __future__ import annotations

import pytest

from models.manifest import Precision
from models.store import Bundle, open_bundle
from service.engine_table import ENGINES
from service.engines.conformance import Effort, verify_one
from service.machine.features import BF16, cpu_flags

ROWS = [(engine, precision) for engine, record in ENGINES.items() if record.formats for precision in record.precisions]
# It needs an Ascend.
ROWS.remove(("mindspore-lite", "fp16"))


@pytest.mark.parametrize(("engine", "precision"), ROWS, ids=[" ".join(row) for row in ROWS])
def test_it_passes_every_check(
    full_bundle: Bundle,
    engine: str,
    precision: Precision,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # Tests of the training in this process may have set it, for MindSpore.
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    if precision == "int8":
        request.getfixturevalue("int8_instructions")
    bundle, python = full_bundle, ""
    if engine == "mindspore-lite":
        bundle, python = (
            open_bundle(request.getfixturevalue("lite_bundle")),
            str(request.getfixturevalue("lite_python")),
        )
    row = verify_one(bundle, engine, precision, Effort(threads=1, max_batch_size=5, calls=1000, python=python))
    if precision == "bf16" and not BF16 & cpu_flags():
        assert row.unavailable is not None
        pytest.skip(row.unavailable)
    assert (row.unavailable, row.failures) == (None, ())
    assert row.max_delta is not None
    assert row.top1_agreement == 1.0
    assert row.images_per_second
