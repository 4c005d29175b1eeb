from __future__ import annotations

from dataclasses import replace

import pytest

from service.observe.objective import Result, Work

OBJECTIVE_S = 0.1
GOOD = Work(status=200, codes=frozenset(), elapsed_s=0.05, read_s=0.01, limit_s=10.0)
REJECTED = replace(GOOD, status=503, codes={"overloaded"})
LATE = replace(GOOD, status=504, codes={"deadline_exceeded"}, elapsed_s=10.0)
LEFT = replace(GOOD, status=499)

FAILED = {
    "a bug": replace(GOOD, status=500, codes={"internal_error"}),
    "an error without a code": replace(GOOD, status=500),
    "a missed deadline of a client that asks again at once": replace(LATE, ignores_retry_after=True),
    "not ready": replace(GOOD, status=503, codes={"not_ready"}),
    "draining": replace(GOOD, status=503, codes={"draining"}),
    "overload": REJECTED,
    "overload before the body is read": replace(REJECTED, read_s=None),
    "the server's own deadline": LATE,
    "a deadline as long as the promise": replace(REJECTED, limit_s=OBJECTIVE_S, read_s=0.0),
    "what an idle server cannot do": replace(LATE, read_s=None, elapsed_s=0.001, limit_s=0.5),
    "one image among good ones": replace(GOOD, codes={"internal_error", "undecodable_image"}),
    "one rejected image among good ones": replace(GOOD, codes={"overloaded"}),
    "a bug on one image, whatever another is": replace(GOOD, status=422, codes={"undecodable_image", "internal_error"}),
    "a bug, although the deadline is short": replace(GOOD, status=500, codes={"internal_error"}, limit_s=0.001),
}
EXCLUDED = {
    "an undecodable image": replace(GOOD, status=422, codes={"undecodable_image"}),
    "a malformed request": replace(GOOD, status=400, codes={"malformed_request"}, read_s=None),
    "an upload that is too slow": replace(GOOD, status=408, codes={"upload_timeout"}, read_s=None, elapsed_s=10.0),
    "a deadline shorter than the promise": replace(LATE, limit_s=0.099, elapsed_s=0.2, read_s=0.0),
    "a rejection for such a deadline": replace(REJECTED, limit_s=0.05),
    "an upload that leaves less than the promise": replace(LATE, limit_s=0.5, read_s=0.45, elapsed_s=0.5),
    "an upload that does not arrive by the deadline": replace(LATE, limit_s=0.5, read_s=None, elapsed_s=0.5),
    "too many pixels for the deadline": replace(LATE, promises=200.0),
    "asking again too early": replace(REJECTED, ignores_retry_after=True),
    "leaving early": LEFT,
    "leaving during the upload": replace(LEFT, read_s=None, elapsed_s=60.0),
}
SLOW = {
    "an answer after the promise": replace(GOOD, elapsed_s=0.2),
    "leaving after the promise": replace(LEFT, elapsed_s=5.0),
}
ANSWERED = {
    "within the promise": GOOD,
    "beside a bad image": replace(GOOD, codes={"undecodable_image"}),
    "after a slow upload": replace(GOOD, elapsed_s=30.05, read_s=30.0),
    "many images": replace(GOOD, elapsed_s=2.0, promises=64.0),
}


@pytest.mark.parametrize(
    ("works", "result"), [(FAILED, "failed"), (EXCLUDED, "excluded"), (SLOW, "slow"), (ANSWERED, "good")]
)
def test_what_the_service_causes_counts_and_what_a_client_causes_does_not(
    works: dict[str, Work], result: Result
) -> None:
    found = {name: work.result(OBJECTIVE_S) for name, work in works.items()}
    assert found == dict.fromkeys(works, result)


@pytest.mark.parametrize(("objective_s", "result"), [(0.03, "slow"), (0.05, "good")])
def test_the_objective_is_that_of_the_settings(objective_s: float, result: Result) -> None:
    assert GOOD.result(objective_s) == result
