"""Write the rules of docker/prometheus/rules.yaml as the resource that the Prometheus operator reads.

Run it after a change of the rules; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "docker/prometheus/rules.yaml"
RESOURCE = ROOT / "k8s/components/monitoring/prometheusrule.yaml"
COMMENT = "# Written by scripts/prometheus_rule.py from docker/prometheus/rules.yaml: change that, and run it again.\n"


def resource(rules: str) -> str:
    """The text of a rule file -> that of a PrometheusRule with the same groups."""
    facts = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "repvgg"},
        "spec": yaml.safe_load(rules),
    }
    return COMMENT + yaml.safe_dump(facts, sort_keys=False, width=120)


if __name__ == "__main__":
    RESOURCE.write_text(resource(RULES.read_text()))
