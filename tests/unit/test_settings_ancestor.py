"""pulpo-messaging's configuration files start a pool as they are."""

from __future__ import annotations

import json

import pytest

from pulpo_pool.errors import ConfigError
from pulpo_pool.settings import load_settings

SAMPLE = {
    "shutdown_after_number_of_empty_iterations": 7,
    "enable_output_buffering": False,
    "queue_adapter_type": "beanstalkd_queue_adapter",
    "enable_statman_reporting": False,
    "banner": {"enable": True, "name": "pulpo"},
    "file_queue_adapter": {
        "base_path": "/tmp/pulpo/fqa",
        "skip_random_messages_range": 0,
        "message_format": "json",
        "enable_history": "True",
    },
    "beanstalkd_queue_adapter": {
        "host": "127.0.0.1",
        "port": 11300,
        "default_tube": "pulpo-beanstalk-queue-adapter",
        "encoding": "UTF-8",
        "reserve_timeout": 0,
    },
    "echo_handler": {"destination_directory": "/tmp/pulpo/echo"},
    "lower_handler": {"destination_directory": "/tmp/pulpo/lower"},
    "AlwaysSucceedHandler": {},
}


@pytest.fixture
def load(tmp_path):
    def load(content, flags=None, **environ):
        (tmp_path / "pulpo-config.json").write_text(json.dumps(content))
        flags = {"config": "pulpo-config.json", **(flags or {})}
        return load_settings(flags, directory=tmp_path, environ=environ)

    return load


def test_its_sample_for_beanstalkd(load):
    settings = load(SAMPLE).settings

    assert settings.broker == "beanstalkd://127.0.0.1:11300?encoding=UTF-8"
    assert settings.queues == ("pulpo-beanstalk-queue-adapter",)
    assert settings.max_empty_iterations == 7
    assert settings.handlers == {
        "echo": {"destination_directory": "/tmp/pulpo/echo"},
        "lower": {"destination_directory": "/tmp/pulpo/lower"},
    }


@pytest.mark.parametrize("kind", ["file_queue_adapter", "FileQueueAdapter"])
def test_its_sample_for_files(load, kind):
    settings = load(SAMPLE | {"queue_adapter_type": kind}).settings

    assert settings.broker_url == "file:/tmp/pulpo/fqa/queue.db"
    assert settings.queues == ("default",)


def test_what_it_left_out_is_as_it_was(load):
    settings = load({"queue_adapter_type": "BeanstalkdQueueAdapter"}).settings

    assert settings.broker == "beanstalkd://127.0.0.1:11300"
    assert settings.queues == ("pulpo-beanstalk-queue-adapter",)


def test_zero_is_zero(load):
    """The ancestor took its default for it."""
    content = {"shutdown_after_number_of_empty_iterations": 0, "sleep_duration": 0}
    settings = load(content).settings

    assert settings.max_empty_iterations == 0
    assert settings.sleep_duration == 0.05, "the shortest wait there is: nobody polls"


@pytest.mark.parametrize(("attempts", "limit"), [(0, 2**31), (3, 3)])
def test_the_limit_of_attempts(load, attempts, limit):
    """0 switches it off."""
    content = SAMPLE | {"beanstalkd_queue_adapter": {"max_number_of_attempts": attempts}}

    assert load(content).settings.max_attempts == limit


def test_values_of_the_environment(load):
    content = SAMPLE | {"beanstalkd_queue_adapter": {"host": "$ENV.QUEUE_HOST"}}

    assert (
        load(content, QUEUE_HOST="mq.internal").settings.broker == "beanstalkd://mq.internal:11300"
    )
    with pytest.raises(ConfigError, match="the environment has no QUEUE_HOST"):
        load(content)


def test_flags_go_before_it_and_our_own_words_may_stand_in_it(load):
    loaded = load(SAMPLE | {"workers": 3, "burst": False}, {"broker": "file:here.db"})

    assert loaded.settings.broker == "file:here.db"
    assert (loaded.settings.workers, loaded.settings.burst) == (3, False)
    assert loaded.sources["queues"] == "pulpo-config.json: beanstalkd_queue_adapter"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "expected an object"),
        ({"queue_adapter_type": "redis"}, "queue_adapter_type: expected file_queue_adapter"),
        (SAMPLE | {"beanstalkd_queue_adapter": 5}, "beanstalkd_queue_adapter: expected an object"),
        (SAMPLE | {"beanstalkd_queue_adapter": {"port": "x"}}, "beanstalkd://HOST:PORT"),
        ({"sleep_duraton": 3}, "sleep_duraton: no such setting; did you mean"),
        ({"sleep_duration": "long"}, "sleep_duration: expected a number"),
        ({"echo_handler": 5}, "the handlers' sections: expected a table"),
    ],
)
def test_mistakes_are_named(load, content, told):
    with pytest.raises(ConfigError, match=told):
        load(content)


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "x.json").write_text("{")

    with pytest.raises(ConfigError, match="is not valid JSON"):
        load_settings({"config": "x.json"}, directory=tmp_path, environ={})
