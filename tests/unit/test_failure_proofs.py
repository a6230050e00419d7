"""The README's failure table and its tests: no row without a proof on each engine, none left over.

A proof is named by file and function; `[name]` is a row of `failures.FATES`, which both
test_failure_table.py run: in a worker's loop on memory, on real pools on file and beanstalkd.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from failures import FATES

ROOT = Path(__file__).parents[2]
HEAD = "| what happens | what becomes of the job |"
ENGINES = ("memory", "file", "beanstalkd")
CRASH = "test_a_job_that_ends_its_worker_is_buried_at_the_limit"
END = "test_a_job_comes_to_its_end"
NO_HOST = "a queue in memory has no life beyond its process"

LOOP = "tests/unit/test_worker_loop.py::"
TABLE = "tests/unit/test_failure_table.py::"
POOLS = "tests/processes/test_failure_table.py::"
PAUSING = "tests/unit/test_pausing.py::"
SETTLING = "pulpo_pool/contracts/settling.py::"
RESCUING = "pulpo_pool/contracts/rescuing.py::"
FILE_HARM = "tests/processes/test_queue_failures.py::"
BEANSTALKD = "tests/processes/test_beanstalkd_pool.py::"
WIRE = "tests/adapters/test_beanstalkd_wire.py::"


def ends(*names):
    """Return the proofs of jobs that are run alike on every engine."""
    pools = [f"{POOLS}{END}[{name}]" for name in names]
    return {
        "memory": [f"{TABLE}{CRASH if FATES[name].crashes else END}[{name}]" for name in names],
        "file": pools,
        "beanstalkd": pools,
    }


def shared(memory, pools):
    return {"memory": [memory], "file": [pools], "beanstalkd": [pools]}


PROOFS = {
    "its handler returns nothing, success or any other value": ends(
        "returns_nothing", "returns_success", "returns_nonsense"
    ),
    "its handler asks for another attempt, by `Transient` or `RequestResult.transient()`": ends(
        "returns_transient"
    ),
    "its handler asks for it with `retry_in=30`": {
        "memory": [f"{LOOP}test_a_transient_job_comes_again_when_it_asked_to"],
        "file": [f"{POOLS}test_a_job_waits_as_long_as_its_handler_asked"],
        "beanstalkd": [f"{POOLS}test_a_job_waits_as_long_as_its_handler_asked"],
    },
    "its handler says never, by `Fatal` or `RequestResult.fatal()`": ends("returns_fatal"),
    "its handler raises, `SystemExit`, `KeyboardInterrupt` and `MemoryError` included": ends(
        "raises", "raises_at_its_last_attempt", "calls_sys_exit", "asks_for_too_much_memory"
    ),
    "its handler raises what its `retry=` refuses": ends("raises_what_is_not_retried"),
    "its handler raises what its `pause_on=` names, or asks for a `pause`": shared(
        f"{PAUSING}test_the_job_that_pauses_its_type_spends_its_attempt_and_waits_as_long",
        f"{POOLS}test_a_type_whose_dependency_is_down_pauses_and_every_job_of_it_is_done",
    ),
    "its type is paused": shared(
        f"{PAUSING}test_a_job_of_a_paused_type_goes_back_unhandled_at_no_cost",
        f"{POOLS}test_a_job_that_is_put_back_spends_no_attempt",
    ),
    "its handler passes its `soft_time_limit`": ends("passes_its_soft_limit"),
    "its handler passes its `time_limit`": ends("passes_its_hard_limit"),
    "its handler ends its worker: `os._exit`, a segfault, kill -9": ends(
        "calls_os_exit", "segfaults", "is_killed"
    ),
    "its worker is killed for its memory, by the kernel or by `max-memory-hard`": {
        "memory": [f"{RESCUING}test_too_many_crashes_bury_a_job_with_the_evidence"],
        "file": [
            f"{POOLS}test_a_worker_that_the_kernel_kills_for_its_memory_is_a_crash",
            (
                "tests/processes/test_limits.py::"
                "test_who_takes_too_much_at_once_is_killed_and_its_job_buried"
            ),
        ],
        "beanstalkd": [f"{POOLS}test_a_worker_that_the_kernel_kills_for_its_memory_is_a_crash"],
    },
    "its worker is stopped or its host cut off, and the lease lapses": {
        "memory": [f"{SETTLING}test_when_its_lease_ends_a_job_is_ready_again"],
        "file": [
            f"{POOLS}test_a_job_whose_lease_lapses_runs_again_and_the_late_settlement_is_refused"
        ],
        "beanstalkd": [f"{SETTLING}test_when_its_lease_ends_a_job_is_ready_again"],
    },
    "it is settled after that": {
        "memory": [f"{LOOP}test_a_settlement_that_comes_too_late_is_told"],
        "file": [
            f"{POOLS}test_a_job_whose_lease_lapses_runs_again_and_the_late_settlement_is_refused"
        ],
        "beanstalkd": [
            f"{SETTLING}test_who_lost_a_job_is_told_so",
            f"{WIRE}test_a_job_that_another_got_meanwhile_is_lost",
        ],
    },
    "it expires, before it is published or while it waits": ends(
        "expires_before", "expires_while_it_waits"
    ),
    "its bytes are no message": shared(
        f"{TABLE}test_bytes_that_are_no_message_are_buried",
        f"{POOLS}test_bytes_that_are_no_message_are_buried",
    ),
    "its type has no handler in this pool": ends("has_no_handler"),
    "the queue is away before it is reserved": {
        "memory": [f"{LOOP}test_a_settlement_outlives_a_queue_that_is_away"],
        "file": [f"{FILE_HARM}test_a_full_disk_is_named_and_waited_for_without_haste"],
        "beanstalkd": [f"{BEANSTALKD}test_a_pool_starts_without_its_server_and_waits_for_it"],
    },
    "the queue goes away while it runs": {
        "memory": [f"{LOOP}test_a_settlement_outlives_a_queue_that_is_away"],
        "file": [f"{FILE_HARM}test_a_job_that_is_done_but_not_settled_outlives_a_full_disk"],
        "beanstalkd": [f"{BEANSTALKD}test_a_cut_connection_is_no_crash"],
    },
    "the queue goes away while it is settled": {
        "memory": [f"{LOOP}test_a_settlement_outlives_a_queue_that_is_away"],
        "file": [
            (
                "tests/adapters/test_file_queue_harm.py::"
                "test_a_failing_transaction_is_undone_and_the_next_one_works"
            )
        ],
        "beanstalkd": [
            f"{WIRE}test_a_line_cut_while_a_job_is_settled_loses_nothing_and_repeats_nothing"
        ],
    },
    "the pool drains": shared(
        f"{LOOP}test_a_job_is_settled_by_the_turn_after_it_was_handled",
        f"{POOLS}test_a_pool_that_drains_lets_a_job_in_hand_finish",
    ),
    "the drain timeout ends it": {
        "memory": [f"{RESCUING}test_a_dead_owners_job_is_back_at_once"],
        "file": [
            (
                "tests/processes/test_drain.py::"
                "test_a_job_that_outlives_the_drain_timeout_is_cut_off_and_handed_back"
            )
        ],
        "beanstalkd": [
            f"{BEANSTALKD}test_a_failing_job_waits_and_a_drained_pool_hands_back_what_it_cut_off"
        ],
    },
    "its pool is killed": {
        "memory": [f"{RESCUING}test_a_dead_owners_job_is_back_at_once"],
        "file": [
            (
                "tests/processes/test_kills.py::"
                "test_after_a_kill_of_all_at_once_the_next_start_takes_all_up_at_once"
            )
        ],
        "beanstalkd": [
            (
                f"{BEANSTALKD}"
                "test_crashes_are_remembered_by_the_next_start_of_the_pool_and_forgiven_by_a_kick"
            )
        ],
    },
    "its host loses power": {
        "memory": NO_HOST,
        "file": [
            (
                "tests/adapters/test_file_queue_power.py::"
                "test_every_prefix_of_the_log_is_a_moment_of_the_queue"
            ),
            (
                "tests/adapters/test_file_queue_power.py::"
                "test_a_job_is_accepted_after_its_sync_and_moved_only_between_syncs"
            ),
        ],
        "beanstalkd": [f"{BEANSTALKD}test_a_server_that_crashes_again_and_again_loses_no_job"],
    },
}


def rows_of_the_readme():
    """Return the first cells of the table."""
    lines = (ROOT / "README.md").read_text().splitlines()
    start = lines.index(HEAD) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(line.split(" | ")[0].removeprefix("| "))
    return rows


def functions_of(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_has_the_rows_that_are_proved_and_no_other():
    assert rows_of_the_readme() == list(PROOFS)


@pytest.mark.parametrize("row", PROOFS)
def test_each_row_is_proved_on_each_engine_by_a_test_that_is_there(row):
    proofs = PROOFS[row]
    named = [proof for each in proofs.values() if each != NO_HOST for proof in each]
    missing = []
    for proof in named:
        path, name, job = re.fullmatch(r"([^:]+)::(\w+)(?:\[(\w+)\])?", proof).groups()
        if name not in functions_of(path) or (job and job not in FATES):
            missing.append(proof)

    assert tuple(proofs) == ENGINES
    assert all(proofs.values())
    assert missing == []


def test_each_fate_is_part_of_a_row():
    """The other way round: no job of the table fails without a row that says so."""
    named = {
        match[1]
        for proofs in PROOFS.values()
        for proof in proofs["file"]
        if (match := re.search(r"\[(\w+)\]", proof))
    }

    assert set(FATES) - named == {"raises_transient_in_an_hour"}, "retry_in is looked at by itself"
