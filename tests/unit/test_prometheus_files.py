"""What Prometheus and Grafana are given: it is whole, and asks only for what a pool exports."""

from __future__ import annotations

import json
import subprocess

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from promql import (
    CONFIG,
    GIVEN_BY_SCRAPES,
    ROOT,
    RULES,
    all_expressions,
    groupings,
    rules,
    selectors,
    series_and_labels,
)
from servers import needed

from grafana import dashboard
from grafana.panels import ROWS

CASES = ROOT / "tests" / "prometheus" / "pulpo-pool.test.yml"


@pytest.mark.parametrize(("where", "expression"), all_expressions())
def test_only_what_is_exported_is_asked_for(where, expression):
    """Every name is one of the catalogue's or a recording rule's, every label one that it has."""
    known = series_and_labels()
    tree = promql_parser.parse(expression)
    asked = list(selectors(tree))

    assert asked
    for name, labels in asked:
        assert labels <= known[name], f"{name} has no {labels - known[name]}"
    there = set().union(*(known[name] for name, _ in asked))
    assert set(groupings(tree)) <= there | GIVEN_BY_SCRAPES


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", str(RULES)),
        ("check", "config", str(CONFIG)),
        ("test", "rules", str(CASES)),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_has_nothing_to_say(arguments):
    done = subprocess.run(
        [needed("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_is_silent():
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    # Each case that fires lists all that do, beside series for which the alert must not.
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}

    assert fires == alerts
    assert (
        silent | {"PulpoBuriedGrowing", "PulpoPoolCrashLooping", "PulpoConfigReloadFailed"}
        == alerts
    )


@pytest.mark.parametrize("rule", [r for r in rules() if "alert" in r], ids=lambda r: r["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["for"]


def test_the_dashboard_is_what_its_program_writes():
    """After a change: python -m grafana.dashboard"""
    assert dashboard.PATH.read_text() == dashboard.text()


def test_grafana_reads_all_of_the_dashboard():
    """A key that its model does not know would not come back out of it."""
    register_default_plugins()
    written = json.loads(dashboard.PATH.read_text())
    read = Dashboard.from_json(json.loads(dashboard.PATH.read_text()))

    assert json.loads(json.dumps(read, cls=JSONEncoder)) == written


def test_no_panel_lies_on_another():
    board = json.loads(dashboard.PATH.read_text())
    taken = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    ids = [panel["id"] for panel in board["panels"]]

    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    assert len(set(ids)) == len(ids) == sum(1 + len(panels) for _, panels in ROWS)


@pytest.mark.parametrize("kind", ["datasources", "dashboards"])
def test_provisioning_is_yaml_of_the_version_that_grafana_reads(kind):
    path = ROOT / "grafana" / "provisioning" / kind / "pulpo-pool.yaml"

    content = yaml.safe_load(path.read_text())
    assert content["apiVersion"] == 1
    assert len(content) == 2
