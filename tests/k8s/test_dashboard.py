"""1. each query is valid PromQL and reads only what a live service exposes; 2. on a real Prometheus each panel has
data, while two versions serve side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import service

if TYPE_CHECKING:
    from conftest import Prometheus

ROOT = Path(service.__file__).parents[1]
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/repvgg.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
EVERY_PANEL = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def queries(panel: dict[str, Any], rate_interval: str) -> list[str]:
    """With the variables filled in to select everything."""
    values = {"$__rate_interval": rate_interval, "$job": ".+", "$instance": ".+"}
    expressions = [target["expr"] for target in panel["targets"]]
    for variable, value in values.items():
        expressions = [expression.replace(variable, value) for expression in expressions]
    return expressions


@EVERY_PANEL
def test_each_query_reads_only_metrics_that_a_live_service_exposes(
    panel: dict[str, Any], known: set[str], metrics_in: Callable[[str], set[str]]
) -> None:
    for query in queries(panel, "1m"):
        assert metrics_in(query) <= known, query


@EVERY_PANEL
def test_with_a_real_prometheus_each_panel_has_data(panel: dict[str, Any], prometheus: Prometheus) -> None:
    for query in queries(panel, prometheus.rate_interval):
        assert prometheus.query(query), query


def test_the_models_panel_distinguishes_versions(prometheus: Prometheus) -> None:
    (panel,) = [panel for panel in PANELS if panel["title"] == "Served models"]
    (query,) = queries(panel, prometheus.rate_interval)
    assert {series["metric"]["version"]: series["value"][1] for series in prometheus.query(query)} == {
        "1": "1",
        "3": "1",
    }


def test_panels_have_unique_ids_and_descriptions_and_do_not_overlap() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)
    cells: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in everything):
        assert place["x"] + place["w"] <= 24
        covered = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not covered & cells, place
        cells |= covered


def test_every_series_can_be_filtered_by_datasource_job_instance_and_model() -> None:
    assert {"datasource", "job", "model", "instance"} == VARIABLES
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job=~"$job"' in target["expr"]
            assert "job:" in target["expr"] or 'instance=~"$instance"' in target["expr"], target["expr"]
    instances = next(one for one in DASHBOARD["templating"]["list"] if one["name"] == "instance")
    assert 'name=~"$model"' in instances["definition"]
