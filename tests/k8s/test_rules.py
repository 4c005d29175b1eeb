"""1. promtool accepts the rules, and they fire when they should; 2. they read only metrics that a live service exposes;
3. the Prometheus operator gets the same rules; 4. each alert links to its runbook section."""

from __future__ import annotations

import re
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import service

if TYPE_CHECKING:
    from conftest import Prometheus

ROOT = Path(service.__file__).parents[1]
RULES = ROOT / "docker/prometheus/rules.yaml"
RUNBOOK = ROOT / "docs/runbook.md"
TESTS = sorted(Path(__file__).parent.glob("*.test.yaml"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_promtool_accepts_the_rules_and_each_alert_fires_when_it_should(need: Callable[[str, str], str]) -> None:
    promtool = need("promtool", "Debian's package prometheus")
    for arguments in (["check", "rules", RULES], ["test", "rules", *TESTS]):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_in_some_test() -> None:
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_the_rules_read_only_metrics_that_a_live_service_exposes(
    known: set[str], metrics_in: Callable[[str], set[str]]
) -> None:
    for rule in rules():
        assert metrics_in(rule["expr"]) <= known, rule


def test_a_real_prometheus_records_the_objectives(prometheus: Prometheus) -> None:
    objectives = [rule["record"] for rule in rules() if rule.get("record", "").startswith("job:repvgg_requests_")]
    assert objectives
    for name in objectives:
        (series,) = prometheus.query(name)
        assert 0 <= float(series["value"][1]) <= 1, series


def test_the_operator_gets_the_same_rules() -> None:
    script = runpy.run_path(str(ROOT / "scripts/prometheus_rule.py"))
    expected = script["resource"](RULES.read_text())
    assert script["RESOURCE"].read_text() == expected, "run: python scripts/prometheus_rule.py"


def test_each_alert_links_to_its_runbook_section() -> None:
    sections = {heading.lower() for heading in re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)}
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert {alert.lower() for alert in alerts} <= sections
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
