"""Write prometheusrule.yaml from deploy/prometheus/rules, which has the same rules for Prometheus.

    python deploy/kubernetes/components/prometheusrule/write.py

A test says when that has been forgotten. Kustomize can put a file's text into a ConfigMap, but not
its content into another resource.
"""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
RULES = HERE.parents[2] / "prometheus" / "rules"
WRITTEN = HERE / "prometheusrule.yaml"


class Dumper(yaml.SafeDumper):
    """Writes an expression of several lines as it was written."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)


def prometheus_rule() -> str:
    """Return the resource with the groups of all files, in the order of their names."""
    groups = [
        group
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "pulpo-pool", "labels": {"app.kubernetes.io/name": "pulpo-pool"}},
        "spec": {"groups": groups},
    }
    text = yaml.dump(resource, Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"# Written by write.py, from deploy/prometheus/rules.\n{text}"


if __name__ == "__main__":
    WRITTEN.write_text(prometheus_rule())
