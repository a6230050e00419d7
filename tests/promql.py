"""Expressions of the dashboard and of the rules: where they are, and what they name."""

from __future__ import annotations

from pathlib import Path

import promql_parser
import yaml

from grafana.panels import RELOADS, ROWS
from pulpo_pool.metrics.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
RULES = ROOT / "deploy" / "prometheus" / "rules" / "pulpo-pool.yml"
GIVEN_BY_SCRAPES = {"job", "instance", "pod"}


def panel_queries(window="30s", scope=".*"):
    """Return title, expression and panel of every query, with Grafana's variables filled in."""
    return [
        (panel.title, filled(query.expr, window, scope), panel)
        for _, panels in ROWS
        for panel in panels
        for query in panel.queries
    ]


def filled(expression, window="30s", scope=".*"):
    for name in ("$__rate_interval", "$__range"):
        expression = expression.replace(name, window)
    for name in ("$job", "$queue", "$request_type"):
        expression = expression.replace(f'"{name}"', f'"{scope}"')
    assert "$" not in expression, expression
    return expression


def rules():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def all_expressions():
    shown = [(title, expression) for title, expression, _ in panel_queries()]
    ruled = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return [*shown, *ruled, ("annotation", filled(RELOADS))]


def series_and_labels():
    """Return what may be asked for: every series that a pool or a rule makes, with its labels."""
    known = {
        name: set(labels) | GIVEN_BY_SCRAPES
        for spec in CATALOGUE
        for name, labels in spec.series.items()
    }
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = set().union(
                *(known[name] for name, _ in selectors(promql_parser.parse(rule["expr"])))
            )
    return known


def selectors(node):
    """Yield the series that an expression asks for, and the labels it matches them by."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
    for part in parts(node):
        yield from selectors(part)


def groupings(node):
    """Yield the labels that an expression adds up or matches by."""
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
        yield from modifier.labels
    elif modifier is not None and modifier.matching is not None:
        yield from modifier.matching.labels
    for part in parts(node):
        yield from groupings(part)


def parts(node):
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        part = getattr(node, name, None)
        if part is not None and not isinstance(part, str):
            yield part
    yield from getattr(node, "args", None) or ()
