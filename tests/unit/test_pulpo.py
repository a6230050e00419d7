"""Pulpo: publishing, jobs, middleware and hooks; and the engine behind it, also across a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from pulpo_pool.app.handlers import JobContext, PayloadHandler
from pulpo_pool.app.pulpo import Pulpo
from pulpo_pool.clock import ManualClock
from pulpo_pool.codec import Codec
from pulpo_pool.errors import (
    ConfigError,
    DuplicateHandler,
    InvalidHandler,
    InvalidMessage,
    MessageTooLarge,
    PartlyPublished,
    WrongProcess,
)
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import JobState, Reservation
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.queues.opening import open_queue
from pulpo_pool.settings import Settings


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(clock) -> MemoryQueueAdapter:
    return MemoryQueueAdapter(queues=("default", "mail"), clock=clock)


@pytest.fixture
def pulpo(queue) -> Pulpo:
    return Pulpo(queue_adapter=queue)


@pytest.fixture
def file_settings(tmp_path) -> Settings:
    return Settings(broker=f"file:{tmp_path / 'queue.db'}", state_dir=str(tmp_path))


def ready_in(settings: Settings) -> list[str]:
    with open_queue(settings.broker_url) as queue:
        return [record.message().body["n"] for record in queue.list_jobs(JobState.READY)]


def in_child(work: Any) -> int:
    """Run `work` in a forked child; return its exit code, -9 and the like for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - a child must never come back into the test
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- publishing -----------------------------------------------------------------------------------


def test_publish_returns_the_message_as_it_was_stored(pulpo, queue, clock):
    published = pulpo.publish(Message(request_type="x", body={"a": 1}, queue="mail"))

    stored = queue.dequeue().message
    assert published == stored
    assert published.id
    assert published.queue == "mail"
    assert published.published_at.timestamp() == clock.now()


def test_publish_many_publishes_all_or_nothing(pulpo, queue):
    good, bad = Message(request_type="x"), Message(request_type="x", body={"a": object()})

    with pytest.raises(InvalidMessage):
        pulpo.publish_many([good, bad])
    assert queue.stats() == {}

    ids = [message.id for message in pulpo.publish_many(good for _ in range(3))]
    assert len(set(ids)) == 3
    assert queue.stats()["default"].ready == 3


def test_whoever_counts_hears_of_what_is_stored_and_of_nothing_else(pulpo, queue):
    """A worker's metrics do; in any other process nobody counts."""
    told = []
    pulpo.count_published = lambda *words: told.append(words)

    pulpo.publish(Message(request_type="x"))
    pulpo.publish_many(
        [Message(request_type=name, queue="mail") for name in ("x", "y", "x")]
        + [Message(request_type="x")]
    )
    bad = Message(request_type="x", body={"a": object()})
    with pytest.raises(InvalidMessage):
        pulpo.publish_many([Message(request_type="x"), bad])
    with pytest.raises(InvalidMessage):
        pulpo.publish(bad)

    assert told == [("default", "x", 1), ("mail", "x", 2), ("mail", "y", 1), ("default", "x", 1)]


def test_of_what_is_partly_published_the_part_is_told(pulpo, queue, monkeypatch):
    def break_down(_messages):
        raise PartlyPublished("the line was cut", ["17", "18"], 3)

    told = []
    pulpo.count_published = lambda *words: told.append(words)
    monkeypatch.setattr(queue, "enqueue_many", break_down)

    with pytest.raises(PartlyPublished):
        pulpo.publish_many(Message(request_type=name) for name in ("x", "y", "z"))

    assert told == [("default", "x", 1), ("default", "y", 1)]


def test_an_app_knows_to_which_queues_its_jobs_go(pulpo):
    @pulpo.job(queue="mail")
    def send_email(): ...

    assert pulpo.job_queues == {"default", "mail"}


def test_a_job_publishes_its_own_arguments(pulpo, queue):
    @pulpo.job()
    def send_email(to, subject="", *, cc=()): ...

    send_email.publish(to="a", cc=["b"])
    send_email.publish("c", "hello")

    bodies = [queue.dequeue().message.body for _ in range(2)]
    assert bodies == [{"to": "a", "cc": ["b"]}, {"to": "c", "subject": "hello"}]


def test_a_job_is_still_the_function(pulpo):
    @pulpo.job
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert add(1) == 2
    assert (add.__name__, add.__doc__, add.request_type) == ("add", "Add.", "add")


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((), {"too": "a"}, r"send\(to, subject=None\): missing a required argument: 'to'"),
        ((), {"to": "a", "too": "b"}, "unexpected keyword argument 'too'"),
        (("a", "b", "c"), {}, "too many positional arguments"),
        ((), {"to": "a", "job": "forged"}, "unexpected keyword argument 'job'"),
    ],
)
def test_wrong_arguments_fail_before_anything_is_published(pulpo, queue, args, kwargs, complaint):
    @pulpo.job()
    def send(job: JobContext, to, subject=None): ...

    with pytest.raises(TypeError, match=complaint):
        send.publish(*args, **kwargs)
    with pytest.raises(TypeError, match=complaint):
        send.options(delay=1).publish(*args, **kwargs)
    assert queue.stats() == {}


def test_any_name_may_be_a_parameter(pulpo, queue):
    @pulpo.job()
    def odd(self, request_type, **rest): ...

    odd.publish(self=1, request_type=2, args=3, options=4)
    odd.publish(1, request_type=2, kind=3)

    assert queue.dequeue().message.body == {"self": 1, "request_type": 2, "args": 3, "options": 4}
    assert queue.dequeue().message.body == {"self": 1, "request_type": 2, "kind": 3}


def test_options_are_counted_from_publishing(pulpo, queue, clock):
    @pulpo.job(queue="mail", priority=7)
    def send(to): ...

    later = send.options(delay=30, expiration=timedelta(hours=1), id="mine", priority=0)
    clock.advance(100)
    message = later.publish(to="a")

    assert (message.id, message.queue, message.priority) == ("mine", "mail", 0)
    assert message.not_before.timestamp() == clock.now() + 30
    assert message.expiration.timestamp() == clock.now() + 3600
    assert send.message(to="a").priority == 7
    assert send.options(queue="default").message(to="a").queue == "default"
    with pytest.raises(InvalidMessage, match="priority"):
        send.options(priority=-1).publish(to="a")


def test_the_decorator_works_with_a_name_or_parentheses_or_neither(pulpo):
    pulpo.job(lambda_of := _named("bare"))
    pulpo.job()(_named("called"))
    pulpo.job("given.name")(_named("ignored"))

    assert [each.request_type for each in pulpo.registry] == ["bare", "called", "given.name"]
    assert pulpo.handler_registry.get("bare") is lambda_of


def _named(name: str) -> Any:
    def function(): ...

    function.__name__ = name
    return function


def test_what_cannot_be_a_job_is_refused_where_it_is_written(pulpo):
    class Echo(PayloadHandler):
        def handle(self, payload): ...

    pulpo.job("taken")(_named("first"))

    with pytest.raises(DuplicateHandler, match="taken"):
        pulpo.job("taken")(_named("second"))
    with pytest.raises(InvalidHandler, match=r"registry\.register\('Echo', Echo\)"):
        pulpo.job()(Echo)
    with pytest.raises(InvalidHandler, match="no name"):
        pulpo.job()(lambda: None)
    with pytest.raises(InvalidHandler, match="wait=5"):
        pulpo.job(wait=5)(_named("third"))
    with pytest.raises(InvalidMessage, match="priority"):
        pulpo.job(priority=-1)(_named("third"))
    with pytest.raises(InvalidMessage, match="queue"):
        pulpo.job(queue="")(_named("third"))
    assert len(pulpo.registry) == 1


# -- in a worker ----------------------------------------------------------------------------------


def context(request_type: str = "x", body: dict[str, Any] | None = None) -> JobContext:
    raw = Codec().encode(Message(request_type=request_type, body=body))
    return JobContext(
        Reservation(job_id="1", queue="q", raw=raw, codec=Codec()), stopping=lambda: False
    )


class Noting:
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    @contextmanager
    def around_job(self, job: JobContext):
        self.notes.append(f"{self.name} enters {job.request_type}")
        try:
            yield
        finally:
            self.notes.append(f"{self.name} leaves")


def test_middleware_wraps_every_job_the_first_outermost(queue):
    notes: list[str] = []
    pulpo = Pulpo(queue_adapter=queue, middleware=[Noting("outer", notes), Noting("inner", notes)])

    @pulpo.job()
    def work(fails):
        notes.append("work")
        if fails:
            raise KeyError("broken")
        return "done"

    handler = pulpo.registry.find("work")
    assert pulpo.perform(handler, context("work", {"fails": False})) == "done"
    story = ["outer enters work", "inner enters work", "work", "inner leaves", "outer leaves"]
    assert notes == story

    notes.clear()
    with pytest.raises(KeyError, match="broken"):
        pulpo.perform(handler, context("work", {"fails": True}))
    assert notes == story


def test_without_middleware_the_handler_is_called(pulpo):
    pulpo.job("x")(lambda: 42)

    assert pulpo.perform(pulpo.registry.find("x"), context()) == 42


def test_middleware_that_is_none_is_refused():
    with pytest.raises(InvalidHandler, match="no method around_job"):
        Pulpo(middleware=[object()])


def test_hooks_are_kept_in_order_and_stay_functions(pulpo):
    first = pulpo.on_worker_start(lambda: "one")
    second = pulpo.on_worker_start(lambda: "two")
    last = pulpo.on_worker_stop(lambda: "bye")

    assert pulpo.worker_start_hooks == [first, second]
    assert pulpo.worker_stop_hooks == [last]


def test_the_pools_settings_reach_publishing_and_handlers(tmp_path, file_settings):
    class Sized(PayloadHandler):
        def handle(self, payload):
            return dict(self.config)

    pulpo = Pulpo(
        settings=Settings(broker=f"file:{tmp_path / 'own.db'}"), options={"x": {"a": 1, "b": 1}}
    )
    pulpo.registry.register("x", Sized)
    pulpo.publish(Message(request_type="x", body={"n": "before"}))

    pool = Settings(broker=file_settings.broker, handlers={"x": {"b": 2}}, max_attempts=4)
    pulpo.use(pool)
    pulpo.publish(Message(request_type="x", body={"n": "after"}))

    assert ready_in(pool) == ["after"]
    assert pulpo.perform(pulpo.registry.find("x"), context()) == {"a": 1, "b": 2}
    assert "number=4" in pulpo.registry.find("x").retry.describe()
    pulpo.close()


# -- the engine -----------------------------------------------------------------------------------


def test_nothing_is_read_or_opened_before_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULPO_POOL_BROKER", "nonsense")
    pulpo = Pulpo()
    job = pulpo.job()(_named("work"))

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="nonsense"):
        job.publish()


def test_the_queue_comes_from_the_configuration_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PULPO_POOL_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pulpo-pool.toml").write_text('broker = "file:jobs.db"\nmax_message_bytes = 300\n')

    with Pulpo() as pulpo:
        pulpo.publish(Message(request_type="x", body={"n": 1}))
        with pytest.raises(MessageTooLarge):
            pulpo.publish(Message(request_type="x", body={"n": "x" * 300}))

    assert ready_in(Settings(broker=f"file:{tmp_path / 'jobs.db'}")) == [1]


def test_closing_lets_go_and_publishing_opens_again(file_settings):
    pulpo = Pulpo(settings=file_settings)
    pulpo.publish(Message(request_type="x", body={"n": 1}))
    first = pulpo.queue_adapter
    pulpo.close()
    pulpo.close()
    pulpo.publish(Message(request_type="x", body={"n": 2}))

    assert pulpo.queue_adapter is not first
    assert ready_in(file_settings) == [1, 2]
    pulpo.close()


def test_an_adapter_that_was_given_is_left_open(pulpo, queue):
    pulpo.close()

    assert pulpo.publish(Message(request_type="x")).id
    assert pulpo.queue_adapter is queue


def test_threads_that_come_first_together_share_one_queue(file_settings):
    pulpo = Pulpo(settings=file_settings)
    start = threading.Barrier(8)
    adapters = []

    def publish(n: int) -> None:
        start.wait(timeout=30)
        pulpo.publish(Message(request_type="x", body={"n": n}))
        adapters.append(pulpo.queue_adapter)

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert len(adapters) == 8
    assert len(set(map(id, adapters))) == 1
    assert sorted(ready_in(file_settings)) == list(range(8))
    pulpo.close()


def test_a_forked_child_opens_its_own_and_the_parents_goes_on(file_settings):
    pulpo = Pulpo(settings=file_settings)
    pulpo.publish(Message(request_type="x", body={"n": "parent"}))
    parents = pulpo.queue_adapter

    def child() -> None:
        pulpo.publish(Message(request_type="x", body={"n": "child"}))
        assert pulpo.queue_adapter is not parents
        pulpo.close()
        pulpo.publish(Message(request_type="x", body={"n": "child again"}))

    assert in_child(child) == 0
    assert in_child(child) == 0
    pulpo.publish(Message(request_type="x", body={"n": "parent again"}))

    assert pulpo.queue_adapter is parents
    assert ready_in(file_settings) == ["parent", *["child", "child again"] * 2, "parent again"]
    pulpo.close()


def test_a_lock_held_by_another_thread_at_the_fork_does_not_stop_the_child(file_settings):
    pulpo = Pulpo(settings=file_settings)
    pulpo.publish(Message(request_type="x", body={"n": 1}))

    with pulpo._engine._here().lock:
        code = in_child(lambda: pulpo.publish(Message(request_type="x", body={"n": 2})))

    assert code == 0
    assert ready_in(file_settings) == [1, 2]
    pulpo.close()


def test_an_adapter_that_was_given_says_so_after_a_fork(pulpo):
    def child() -> None:
        with pytest.raises(WrongProcess):
            pulpo.publish(Message(request_type="x"))

    assert in_child(child) == 0


def test_an_app_installs_no_signal_handlers_and_imports_no_machinery():
    story = (
        "import signal, sys\n"
        "before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]\n"
        "from pulpo_pool import Pulpo, Message, RequestResult, Transient, Fatal, JobContext\n"
        "pulpo = Pulpo()\n"
        "@pulpo.job()\n"
        "def send_email(to: str, subject: str = '') -> None: ...\n"
        "assert before == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]\n"
        "heavy = {'prometheus_client', 'rich', 'click', 'psutil', 'sqlite3', 'tenacity',\n"
        "         'waitress', 'greenstalk', 'setproctitle', 'asyncio', 'pulpo_pool.settings'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", story], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_package_alone_imports_none_of_its_modules():
    """The master imports the package too, and must stay small."""
    story = "import sys, pulpo_pool; print([m for m in sys.modules if m.startswith('pulpo_pool.')])"
    done = subprocess.run(
        [sys.executable, "-c", story], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "[]\n"
