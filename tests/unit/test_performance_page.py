"""docs/performance.md and its plots: what they say is what the results on disk say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import endured, paced
from benchmarks.drain import Drained
from benchmarks.goal_list import GOALS
from benchmarks.goals import Change, Each, Goal, Ratio, Value
from benchmarks.page import PAGE, refreshed
from benchmarks.plots import FOLDER, PLOTS
from benchmarks.readings import Readings, Where
from benchmarks.report import save

OURS, THEIRS = Where("drain", "ours", "speed"), Where("drain", "theirs", "speed")


@pytest.fixture
def results(tmp_path):
    """Return what reads the results after these figures of contenders have been kept."""

    def keep(**speeds):
        runs = [
            {"contender": name, "baseline": "theirs", "round": place, "speed": speed}
            for name, several in speeds.items()
            for place, speed in enumerate(several)
        ]
        (tmp_path / "drain.json").write_text(json.dumps({"runs": runs}))
        return Readings(tmp_path)

    return keep


def samples(last, **members):
    """Return sixty samples of one process; the last six differ."""
    usual = {"own": 100, "pss": 150, "rss": 200, "descriptors": 10}
    return [
        {
            "jobs_per_second": 1000.0,
            "worker_cpu": 50.0,
            "files": {"run_directory": 5},
            "members": [usual | (members if number >= 60 - last else {})],
        }
        for number in range(60)
    ]


def test_the_page_is_what_the_results_say():
    """After new results: python -m benchmarks report."""
    text = PAGE.read_text()

    assert refreshed(text, Readings()) == text


def test_every_plot_is_drawn_from_the_results_as_they_are_now():
    """Otherwise: python -m benchmarks report."""
    readings = Readings()
    wanted = {f"{name}.svg": p for name, p in PLOTS.items() if p.can_be_drawn(readings)}

    assert {path.name for path in FOLDER.glob("*")} == set(wanted)
    for name, plot in wanted.items():
        assert f">{plot.origin(readings)}<" in (FOLDER / name).read_text(), name


def test_the_page_has_a_place_for_every_plot_and_for_the_goals():
    text = PAGE.read_text()

    assert [name for name in PLOTS if f"<!-- generated: plot {name} -->" not in text] == []
    assert "<!-- generated: goals -->" in text


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.text)
def test_a_goal_has_one_bound(goal):
    assert (goal.at_least is None) != (goal.at_most is None)


@pytest.mark.parametrize(
    ("ours", "measured", "verdict"),
    [
        ([12, 11, 13], "1.20 (1.10-1.30)", "met"),
        ([10, 12, 13], "1.20 (1-1.30)", "met, not in each round"),
        ([9, 10, 12], "1 (0.90-1.20)", "**missed**, not in each round"),
        ([9, 8, 7], "0.80 (0.70-0.90)", "**missed**"),
    ],
)
def test_a_goal_is_met_by_the_median_and_says_when_some_round_is_not(
    results, ours, measured, verdict
):
    goal = Goal("drain", "over theirs", Ratio(OURS, THEIRS), at_least=1.1)

    row = goal.row(results(ours=ours, theirs=[10, 10, 10]))

    assert row == ("drain", "over theirs ≥ 1.10", measured, verdict)


def test_a_goal_without_results_is_not_measured(results):
    readings = results(ours=[3])

    needs = Ratio(OURS, THEIRS), Value(THEIRS), Each(OURS, THEIRS, 8), Change("long", "memory")
    for source in needs:
        assert Goal("w", "d", source, at_most=1).row(readings) == ("w", "d ≤ 1", "", "not measured")


def test_a_value_is_held_to_its_bound_in_its_unit(results):
    goal = Goal("w", "p99", Value(OURS), at_most=5, unit=" ms")

    assert goal.row(results(ours=[4, 6, 5])) == (
        "w", "p99 ≤ 5 ms", "5 (4-6)", "met, not in each round"
    )  # fmt: skip


@pytest.mark.parametrize(("seconds", "verdict"), [(600.0, "**missed**"), (90.0, "not measured")])
def test_a_short_try_of_the_long_run_is_no_verdict(tmp_path, seconds, verdict):
    content = {"seconds": seconds, "runs": samples(6, descriptors=11)}
    (tmp_path / "long.json").write_text(json.dumps(content))

    goal = Goal("long", "descriptors", Change("long", "descriptors"), at_most=1)

    assert goal.row(Readings(tmp_path))[3] == verdict


def test_what_each_further_one_adds_is_the_difference_by_round(results):
    goal = Goal("memory", "each", Each(OURS, THEIRS, 8), at_most=3, unit=" MiB")

    row = goal.row(results(ours=[116, 124, 132], theirs=[100, 100, 100]))

    assert row == ("memory", "each ≤ 3 MiB", "3 (2-4)", "met, not in each round")


def test_a_file_without_results_leaves_its_place_on_the_page(results):
    page = "a\n<!-- generated: table nothing -->\nold\n<!-- end: table nothing -->\nb\n"

    assert refreshed(page, results(ours=[1])).splitlines()[2] == "Not measured."


def test_a_table_shows_what_its_file_says_it_shows(tmp_path):
    runs = [
        Drained("pulpo-pool", "raw", 0, 9.0, 1.0, 0.0),
        Drained("raw", "raw", 0, 18.0, 2.0, 0.0),
    ]
    save(tmp_path / "some.json", "drain", runs, jobs=7)
    content = json.loads((tmp_path / "some.json").read_text())
    page = "<!-- generated: table some -->\n<!-- end: table some -->"

    lines = refreshed(page, Readings(tmp_path)).splitlines()

    assert lines[1] == "| contender | jobs/s (min-max) | ratio | CPU us/job (min-max) | ratio |"
    assert lines[3] == "| **pulpo-pool** | 9 (9-9) | 0.50 | 1 (1-1) | 0.50 |"
    assert content["jobs"] == 7
    assert {"at", "commit", "machine", "system", "load", "versions"} <= content.keys()


@pytest.mark.parametrize("grows", [{"own": 103}, {"descriptors": 11}])
def test_what_grows_in_a_long_run_is_seen(grows):
    names = {"own": "memory", "descriptors": "descriptors"}
    (name, value), *_ = grows.items()

    assert endured.change(samples(0), names[name]) == 1
    assert endured.change(samples(6, **grows), names[name]) == pytest.approx(
        value / {"own": 100, "descriptors": 10}[name]
    )


def test_a_long_run_is_judged_by_its_second_and_last_tenth():
    second, last = endured.second_and_last(list(range(60)))

    assert (second, last) == (list(range(6, 12)), list(range(54, 60)))


def test_a_slow_queue_changes_nothing_in_when_jobs_are_due(tmp_path):
    """Or the waits of a queue that stalls would be left out: coordinated omission."""
    (tmp_path / "shop.py").write_text(
        "import time\n"
        "def publish(n, to, subject):\n"
        "    with open('due', 'a') as file:\n"
        "        print(n, file=file)\n"
        "    time.sleep(0.01)\n"
    )

    done = subprocess.run(
        [sys.executable, paced.__file__, "plan", "1000", "0.02"],
        cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip

    due = [int(line) for line in Path(tmp_path / "due").read_text().split()][paced.WARM_UP :]
    told = json.loads(done.stdout)
    assert [each - due[0] for each in due] == [number * 1_000_000 for number in range(20)]
    assert told["sent"] == len(told["late"]) == 20
    assert told["late"] == sorted(told["late"])  # it never waits while it is behind
