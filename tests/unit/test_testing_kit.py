"""pulpo_pool.testing: a user's tests see what their jobs do, and what they raise."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pulpo_pool import Fatal, JobContext, Message, Pulpo, RequestResult, Transient
from pulpo_pool.clock import ManualClock as ClocksOwn
from pulpo_pool.errors import InvalidMessage
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.settings import Settings
from pulpo_pool.testing import JobFailed, ManualClock, eager, eventually


class Shop:
    """A user's app: the settings name a queue that no test may touch."""

    def __init__(self) -> None:
        self.pulpo = Pulpo(settings=Settings(broker="file:/nowhere/queue.db"))
        self.sent: list[str] = []
        self.send_email = self.pulpo.job()(self._send_email)
        self.order = self.pulpo.job("order")(self._order)
        self.fail = self.pulpo.job("fail")(self._fail)

    def _send_email(self, to: str) -> None:
        self.sent.append(to)

    def _order(self, job: JobContext, to: str) -> None:
        self.send_email.publish(to=f"{to} {job.attempt}")

    def _fail(self, how: str) -> object:
        errors = {"key": KeyError("x"), "fatal": Fatal("never"), "later": Transient("later"),
                  "exit": SystemExit(3), "interrupt": KeyboardInterrupt()}  # fmt: skip
        if how in errors:
            raise errors[how]
        return RequestResult.fatal("no") if how == "says fatal" else RequestResult.transient("wait")


@pytest.fixture
def shop() -> Shop:
    app = Shop()
    app.send_email = app.pulpo.job("mail")(app._send_email)
    return app


# -- eager ----------------------------------------------------------------------------------------


def test_eager_runs_what_is_published_at_once(shop):
    with eager(shop.pulpo) as published:
        message = shop.order.publish(to="a")
        assert shop.sent == ["a 1"]
        shop.send_email.options(delay=3600).publish(to="b")

    assert shop.sent == ["a 1", "b"]
    assert [each.request_type for each in published] == ["order", "mail", "mail"]
    assert published[0] == message
    assert len({each.id for each in published}) == 3


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("key", KeyError),
        ("fatal", Fatal),
        ("later", Transient),
        ("says fatal", Fatal),
        ("says transient", Transient),
        ("exit", SystemExit),
    ],
)
def test_eager_lets_a_handlers_exception_out_of_publish(shop, how, error):
    with eager(shop.pulpo), pytest.raises(error):
        shop.fail.publish(how=how)


def test_eager_refuses_what_could_not_travel_or_has_no_handler(shop):
    with eager(shop.pulpo) as published:
        with pytest.raises(InvalidMessage):
            shop.send_email.publish(to=object())
        with pytest.raises(JobFailed, match="no handler for request_type 'mial'"):
            shop.pulpo.publish(Message(request_type="mial"))

    assert shop.sent == []
    assert [each.request_type for each in published] == ["mial"]


def test_eager_gives_what_a_worker_would_give(shop):
    """A tuple becomes a list on its way, in tests too."""
    got = []

    @shop.pulpo.job()
    def take(value):
        got.append(value)

    with eager(shop.pulpo):
        take.publish(value=(1, 2))
    assert got == [[1, 2]]


def test_eager_ends_with_its_block(shop):
    engine = shop.pulpo._engine
    with pytest.raises(KeyError), eager(shop.pulpo):
        shop.fail.publish(how="key")

    assert shop.pulpo._engine is engine


# -- the fixture ----------------------------------------------------------------------------------


def test_work_off_runs_all_that_is_ready_and_what_that_publishes(shop, pulpo_queue):
    queue = pulpo_queue(shop.pulpo)
    shop.order.publish(to="a")
    shop.order.options(queue="slow").publish(to="b")
    assert shop.sent == []

    assert queue.work_off() == 4
    assert sorted(shop.sent) == ["a 1", "b 1"]
    assert [each.queue for each in queue.published] == ["default", "slow", "default", "default"]
    assert queue.queue.stats() == {}


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("key", KeyError),
        ("fatal", Fatal),
        ("later", Transient),
        ("says fatal", Fatal),
        ("says transient", Transient),
        ("exit", JobFailed),
        ("interrupt", JobFailed),
    ],
)
def test_work_off_lets_a_handlers_exception_surface(shop, pulpo_queue, how, error):
    queue = pulpo_queue(shop.pulpo)
    shop.fail.publish(how=how)
    shop.send_email.publish(to="after")

    with pytest.raises(error):
        queue.work_off()

    assert shop.sent == []
    assert queue.work_off() == 1
    assert shop.sent == ["after"]
    assert len(queue.buried()) + len(queue.delayed()) == 1


def test_work_off_surfaces_the_exception_itself(shop, pulpo_queue):
    queue = pulpo_queue(shop.pulpo)
    shop.fail.publish(how="key")

    with pytest.raises(KeyError) as caught:
        queue.work_off()
    assert any(entry.name == "_fail" for entry in caught.traceback)


def test_an_unknown_request_type_fails_the_test(shop, pulpo_queue):
    queue = pulpo_queue(shop.pulpo)
    shop.pulpo.publish(Message(request_type="mial"))

    with pytest.raises(JobFailed, match="mial"):
        queue.work_off()


def test_work_through_lets_failures_be_for_the_test_to_look_at(shop, pulpo_queue):
    queue = pulpo_queue(shop.pulpo)
    shop.fail.publish(how="fatal")
    shop.fail.publish(how="key")
    shop.send_email.publish(to="after")

    assert queue.work_through() == 3
    assert shop.sent == ["after"]
    assert [done.outcome for done in queue.done] == [
        JobOutcome.BURIED,
        JobOutcome.RETRIED,
        JobOutcome.SUCCESS,
    ]
    assert [(job.reason, job.error) for job in queue.buried()] == [("fatal", "never")]
    assert "KeyError" in queue.delayed()[0].error


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_clock_brings_delayed_jobs_their_time(shop, pulpo_queue, by_hand):
    queue = pulpo_queue(shop.pulpo)
    if by_hand:
        message = Message(request_type="mail", body={"to": "a"}, delay=timedelta(hours=1))
        shop.pulpo.publish(message)
    else:
        queue.clock.advance(10**6)
        shop.send_email.options(delay=3600).publish(to="a")

    queue.clock.advance(3500)
    assert queue.work_off() == 0
    queue.clock.advance(100)
    assert queue.work_off() == 1


def test_retries_run_until_the_pools_limit_buries_them(shop, pulpo_queue):
    queue = pulpo_queue(shop.pulpo)
    shop.fail.publish(how="key")

    attempts = 0
    while queue.work_through():
        attempts += 1
        queue.clock.advance(600)

    assert attempts == 20
    assert [job.reason for job in queue.buried()] == ["exhausted"]


def test_two_apps_have_two_queues(shop, pulpo_queue):
    other = Shop()
    queues = pulpo_queue(shop.pulpo), pulpo_queue(other.pulpo)
    shop.send_email.publish(to="a")

    assert [len(queue.published) for queue in queues] == [1, 0]


def test_the_app_is_as_before_when_the_test_is_over(shop):
    from pulpo_pool.testing import QueueHarness

    engine = shop.pulpo._engine
    with QueueHarness(shop.pulpo):
        shop.send_email.publish(to="a")

    assert shop.pulpo._engine is engine


# -- the rest -------------------------------------------------------------------------------------


def test_eventually_returns_what_came_true():
    answers = iter([0, None, "", "yes"])

    assert eventually(lambda: next(answers)) == "yes"


def test_eventually_says_what_did_not_come_true():
    def never() -> int:
        return 0

    with pytest.raises(AssertionError, match=r"never did not come true within 0 s: 0"):
        eventually(never, within=0)


def test_the_manual_clock_is_the_packages_own():
    assert ManualClock is ClocksOwn
