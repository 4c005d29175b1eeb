from __future__ import annotations

import time

import pytest
from starlette.requests import Request

from service.api.problems import RequestError
from service.api.reading.parameters import check_names, read_flag, read_query, read_timeout_s, read_top_k

KNOWN = ("top_k", "timeout_ms", "version", "verbose")


def query(text: str) -> dict[str, str]:
    return read_query(Request({"type": "http", "query_string": text.encode()}), KNOWN)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *[
            (name, "top_k")
            for name in (
                "topk",
                "topK",
                "top-k",
                "Top_K",
                "top.k",
                "top",
                "top_ks",
                "tok_k",
                "top_n",
                "amp;top_k",
                "k",
                "K",
                "TopK",
                "to_k",
                "tpo_k",
                "top_k ",
                "topk_results",
                "topk[]",
            )
        ],
        *[
            (name, "timeout_ms")
            for name in (
                "timeout",
                "timeoutms",
                "timeout-ms",
                "timeoutMs",
                "time_out",
                "timeout_s",
                "timeout_seconds",
                "tiemout_ms",
            )
        ],
        *[(name, "version") for name in ("Version", "versions", "verison")],
        *[(name, "verbose") for name in ("verbos", "VERBOSE", "verbosity")],
    ],
)
def test_a_name_that_is_nearly_known_is_rejected(name: str, meant: str) -> None:
    with pytest.raises(RequestError) as caught:
        query(f"{name}=3")
    assert caught.value.code == "invalid_parameter"
    assert str(caught.value) == f"there is no parameter {name}; did you mean {meant}?"


FOREIGN = """\
_ a api_key apikey async authuser b batch c cachebuster callback cat cb client client_id code color conversion
count country cursor d date debug dclid device dir download e embed env event fbclid fields file filter force
format from gclid gl h height hl host i id image img include index jsonp key kind l label lang language level
limit locale m max mc_cid mc_eid method min mission mode model msclkid n name nocache nonce offset on option
order orderby origin output p page path per_page ping platform plot pop port preview pretty probe q quality
query r rand random redirect ref referrer region request_id requestid retry s sample scope score search
session session_id sid sig size skip sort source src start state step stop stops style t tab tag target task
temp template test text theme threshold time times timestamp timezone title to tok token tone tool top_level
topic topics total tp trace traceid track ts type tz u uid url user utm_campaign utm_content utm_id utm_medium
utm_source utm_term uuid v ver verb verify vertical view w width x x-amz-date xid y z zoom
"""


@pytest.mark.parametrize("name", ["", *FOREIGN.split()])
def test_foreign_names_are_ignored(name: str) -> None:
    assert query(f"{name}=3&top_k=1") == {"top_k": "1"}


def test_a_parameter_may_be_repeated_but_not_contradicted() -> None:
    assert query("top_k=1&top_k=1&x=1&x=2") == {"top_k": "1"}
    with pytest.raises(RequestError, match="top_k is given twice, as 1 and as 01"):
        query("top_k=1&top_k=01")


def test_thousands_of_names_cost_no_time() -> None:
    began = time.perf_counter()
    check_names((f"tame{number}out" for number in range(20_000)), KNOWN)
    assert time.perf_counter() - began < 0.5


def test_five_labels_unless_there_are_fewer_classes() -> None:
    assert (read_top_k({}, 1000), read_top_k({}, 3), read_top_k({"top_k": "3"}, 3)) == (5, 3, 3)


def test_a_timeout_is_given_in_milliseconds() -> None:
    assert (read_timeout_s({}, 50), read_timeout_s({"timeout_ms": "60000"}, 50)) == (None, 60.0)


@pytest.mark.parametrize(("value", "on"), [("", True), ("1", True), ("true", True), ("0", False), ("False", False)])
def test_a_flag_is_on_when_it_is_there_unless_it_says_no(value: str, on: bool) -> None:
    assert read_flag({"verbose": value}, "verbose") is on
    assert not read_flag({}, "verbose")
