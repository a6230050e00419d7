"""Writes the dashboard: `python -m grafana.dashboard`, after a change of panels.py.

The JSON is committed, so that nobody needs this program to use it; a test writes it anew and
compares.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.panels import RELOADS, ROWS, VARIABLES, Panel

PATH: Final = Path(__file__).parent / "dashboards" / "pulpo-pool.json"
SOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHTS: Final = {"stat": 4}
USUAL_HEIGHT: Final = 8


def text() -> str:
    """Return the dashboard as it is committed."""
    return json.dumps(built(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def built() -> dashboard.Dashboard:
    board = (
        dashboards.Dashboard("pulpo-pool")
        .uid("pulpo-pool")
        .description("A job's story: it waits, is handled, is settled; and who does that.")
        .tags(["pulpo-pool"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .annotation(
            dashboards.AnnotationQuery()
            .name("Reloads")
            .datasource(SOURCE)
            .enable(True)
            .hide(False)
            .icon_color("blue")
            .expr(RELOADS)
            .title_format("Reloaded")
        )
    )
    for name, label, query in VARIABLES:
        board.with_variable(variable(name, label, query))
    ids = itertools.count(1)
    for title, panels in ROWS:
        board.with_row(dashboards.Row(title).id(next(ids)))
        for each in panels:
            board.with_panel(panel(each).id(next(ids)))
    return board.build()


def variable(name: str, label: str, query: str) -> dashboards.QueryVariable:
    return (
        dashboards.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def panel(spec: Panel) -> timeseries.Panel:
    kinds = {"stat": stat.Panel, "table": table.Panel, "heatmap": heatmap.Panel}
    made = kinds.get(spec.look, timeseries.Panel)()
    made.title(spec.title).description(spec.about).unit(spec.unit).datasource(SOURCE)
    made.span(spec.width).height(HEIGHTS.get(spec.look, USUAL_HEIGHT))
    for number, query in enumerate(spec.queries):
        made.with_target(target(spec, chr(ord("A") + number), query.expr, query.legend))
    if spec.limits:
        made.thresholds(thresholds(spec))
    if spec.look in ("lines", "stack"):
        lines(made, spec)
    elif spec.look == "heatmap":
        made.calculate(False).y_axis(heatmap.YAxisConfig().unit(spec.unit))
    elif spec.look == "stat":
        made.graph_mode(common.BigValueGraphMode.AREA)
        made.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    return made


def target(spec: Panel, ref: str, expr: str, legend: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).expr(expr).datasource(SOURCE)
    if legend:
        query.legend_format(legend)
    if spec.look == "table":
        return query.instant().format(PromQueryFormat.TABLE)
    return query.range().format(
        PromQueryFormat.HEATMAP if spec.look == "heatmap" else PromQueryFormat.TIME_SERIES
    )


def lines(made: timeseries.Panel, spec: Panel) -> None:
    # The legend is off unless it is asked for.
    made.legend(
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )
    made.tooltip(
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    made.min(0).fill_opacity(10)
    if spec.look == "stack":
        made.fill_opacity(40).stacking(
            common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
        )


def thresholds(spec: Panel) -> dashboards.ThresholdsConfig:
    steps = [dashboard.Threshold(value=value or None, color=color) for value, color in spec.limits]
    return dashboards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


if __name__ == "__main__":
    PATH.write_text(text())
