"""A user's own app: written as the documentation says, configured in each of the ways it may be."""

# ruff: noqa: E501 - the app is quoted as it is documented

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from pool import PoolProcess, eventually

from pulpo_pool.queues.adapter import JobState, QueueStats
from pulpo_pool.queues.opening import open_queue

SHOP = """
# shop.py
from pulpo_pool import Pulpo, Message, RequestResult, Transient, Fatal
pulpo = Pulpo()                                  # engine from configuration, opened at first use, never at import

@pulpo.job()                                     # request_type: the function's name, or given
def send_email(to: str, subject: str = "") -> None: ...
"""

PUBLISHER = """
from shop import Message, pulpo, send_email
message = send_email.publish(to="a@example.org")              # .options(delay=30, priority=10, expiration=3600, queue="mail").publish(...)
pulpo.publish(Message(request_type="send_email", body={"to": "a@example.org"}))      # the ancestor's way; returns the message with its id
later = send_email.options(delay=30, priority=10, expiration=3600, queue="mail").publish("b@example.org")
print(message.id, later.id)
"""

CONFIGURED = {
    "pulpo-pool.toml": 'app = "shop:pulpo"\nworkers = 2\n',
    "pyproject.toml": '[project]\nname = "shop"\n\n[tool.pulpo-pool]\napp = "shop:pulpo"\nworkers = 2\n',
}


def run_python(folder, code, **env):
    """Run a program of the user's in the folder, without the tests' own paths."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def succeeded(pool, request_type):
    return pool.counted_in_files(
        "pulpo_jobs_finished_total", request_type=request_type, outcome="success"
    )


@pytest.mark.parametrize("file", CONFIGURED)
def test_the_documented_app_runs_with_its_name_in_a_file(tmp_path, file):
    write(tmp_path, shop=SHOP)
    (tmp_path / file).write_text(CONFIGURED[file])
    published = run_python(tmp_path, PUBLISHER).split()
    with PoolProcess(tmp_path, "--burst") as pool:
        code = pool.wait()
        (later,) = pool.jobs(JobState.DELAYED)

    assert code == 0
    assert succeeded(pool, "send_email") == 2
    assert "starts 2 workers of shop:pulpo" in pool.log
    assert (later.message().id, later.queue, later.priority) == (published[1], "mail", 10)
    assert later.message().body == {"to": "b@example.org"}


def test_importing_the_app_opens_nothing(tmp_path):
    write(tmp_path, shop=SHOP)
    run_python(tmp_path, "import shop", PYTHONDONTWRITEBYTECODE="1")

    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]


def test_the_environment_configures_pool_and_publishers_alike(tmp_path):
    write(tmp_path, shop=SHOP)
    url = f"file:{tmp_path}/elsewhere.db"
    env = {"PULPO_POOL_BROKER": url, "PULPO_POOL_QUEUES": "default,mail"}
    run_python(tmp_path, PUBLISHER, **env)
    chosen = {"PULPO_POOL_APP": "shop:pulpo", "PULPO_POOL_WORKERS": "3", "PULPO_POOL_BURST": "1"}
    with PoolProcess(tmp_path, **env, **chosen) as pool:
        code = pool.wait()
    with open_queue(url) as queue:
        left = queue.stats()

    assert code == 0
    assert succeeded(pool, "send_email") == 2
    assert "starts 3 workers of shop:pulpo" in pool.log
    assert "queues default, mail" in pool.log
    assert left == {"mail": QueueStats(delayed=1)}


def test_payload_handlers_get_their_options_from_the_configuration(tmp_path):
    """As in pulpo-messaging: classes in a registry, made once in each worker."""
    write(
        tmp_path,
        shop="""
        from pulpo_pool import HandlerRegistry, PayloadHandler, Pulpo, RequestResult

        class Greet(PayloadHandler):
            def handle(self, payload):
                with open("greetings", "a") as file:
                    words = self.config["greeting"], payload["name"], self.config["mail.sender"]
                    print(*words, self.config.get("loud"), file=file)
                return RequestResult.success_factory()

        class Refuse(PayloadHandler):
            def handle(self, payload):
                return RequestResult.fatal_factory(f"{payload} is not for sale")

        registry = HandlerRegistry()
        registry.register("greet", Greet)
        registry.register("refuse", Refuse)
        pulpo = Pulpo(registry=registry)
        """,
    )
    (tmp_path / "pulpo-pool.toml").write_text(
        textwrap.dedent("""
        app = "shop:pulpo"
        workers = 1

        [handlers.greet]
        greeting = "ciao"
        loud = false

        [handlers.greet.mail]
        sender = "shop@example.org"
        """)
    )
    publish = "from shop import pulpo\nfrom pulpo_pool import Message\n"
    publish += "pulpo.publish(Message(request_type='greet', payload={'name': 'Ada'}))\n"
    publish += "pulpo.publish(Message(request_type='refuse', payload='the cat'))\n"
    run_python(tmp_path, publish)
    with PoolProcess(tmp_path, "--burst") as pool:
        code = pool.wait()
        (refused,) = pool.jobs(JobState.BURIED)

    assert code == 0
    assert pool.lines("greetings") == [["ciao", "Ada", "shop@example.org", "False"]]
    assert (refused.reason, refused.error) == ("fatal", "the cat is not for sale")


LOGGING_SHOP = """
import logging
import logging.config
from pulpo_pool import JobContext, Pulpo, Transient

{configure}
pulpo = Pulpo()

@pulpo.job()
def send_email(context: JobContext, to: str):
    logging.getLogger("shop").warning("to %s", to)
    context.logger.info("from the context")
    if context.attempt == 1:
        raise Transient("greylisted", retry_in=0)

@pulpo.job()
def explode():
    raise ValueError("two\\nlines")
"""


def log_lines(pool):
    return [json.loads(line) for line in pool.log.splitlines()]


def test_json_log_lines_say_who_and_which_job(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=LOGGING_SHOP.format(configure="")) as pool:
        pool.ready().publish("send_email", [{"to": "a@example.org"}])
        pool.publish("explode", [{}])
        eventually(
            lambda: pool.stats() == QueueStats(delayed=1), what="one job waits to be retried"
        )
        lines = log_lines(pool)
    (pid,) = {line["pid"] for line in lines if line["process"] == "worker 0"}
    of_jobs = [line for line in lines if "job_id" in line]
    said = {(line["logger"], line["message"], line["attempt"]) for line in of_jobs}
    failures = [line["message"] for line in of_jobs if line["logger"] == "pulpo_pool.worker.report"]

    assert {line["slot"] for line in of_jobs} == {0}
    assert {line["pid"] for line in of_jobs} == {pid}
    assert {(line["job_id"], line["request_type"]) for line in of_jobs} == {
        ("1", "send_email"),
        ("2", "explode"),
    }
    assert {
        ("shop", "to a@example.org", 1),
        ("shop", "to a@example.org", 2),
        ("pulpo_pool.job.send_email", "from the context", 2),
    } <= said
    assert any(text.endswith("again in 0.0 s: greylisted") for text in failures)
    assert all("slot" not in line for line in lines if line["process"] == "master")


def test_an_app_that_configures_logging_gets_its_own_lines_its_way_and_the_pools_too(tmp_path):
    configure = """
logging.config.dictConfig({
    "version": 1,
    "formatters": {"own": {"format": "{\\"own\\": \\"%(message)s\\"}"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
    "root": {"handlers": ["own"], "level": "INFO"},
})
"""
    app = LOGGING_SHOP.format(configure=configure)
    with PoolProcess(tmp_path, "-w", "1", app=app) as pool:
        pool.ready().publish("send_email", [{"to": "a@example.org"}])
        eventually(lambda: pool.stats() == QueueStats(), what="the job is done")
        lines = log_lines(pool)
    own = [line["own"] for line in lines if "own" in line]
    pools = [line["message"] for line in lines if line.get("request_type") == "send_email"]

    assert own == ["to a@example.org"] * 2
    assert any("greylisted" in message for message in pools)
