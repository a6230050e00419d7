"""Settings: where they come from, which source wins, and how mistakes are told."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpo_pool.errors import ConfigError
from pulpo_pool.settings import (
    SETTING_FIELDS,
    Settings,
    load_settings,
    parse_address,
    read_environment,
)
from pulpo_pool.settings.fields import Mismatch


@pytest.fixture
def load(tmp_path):
    """Load the settings of a project folder; `flags`, `environ` as given."""

    def load(flags=None, environ=None):
        return load_settings(flags or {}, directory=tmp_path, environ=environ or {})

    return load


@pytest.fixture
def problems(load):
    """Load settings that are wrong; return the lines that say so."""

    def problems(flags=None, environ=None):
        with pytest.raises(ConfigError) as caught:
            load(flags, environ)
        return caught.value.problems

    return problems


@pytest.fixture
def write(tmp_path):
    def write(text, name="pulpo-pool.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


class TestSources:
    def test_without_any_source_the_defaults_hold(self, load):
        loaded = load()

        assert loaded.settings == Settings()
        assert set(loaded.sources.values()) == {"default"}
        assert not loaded.is_given("http")

    def test_workers_default_to_the_usable_cpus(self, load):
        if not hasattr(os, "sched_setaffinity"):
            pytest.skip("this system has no CPU affinity")
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            workers = load().settings.workers
        finally:
            os.sched_setaffinity(0, allowed)

        assert workers == 1

    def test_each_source_overrides_the_weaker_ones(self, load, write):
        flags, environ = {"workers": "5"}, {"PULPO_POOL_WORKERS": "4", "WEB_CONCURRENCY": "2"}
        hinted = load(environ={"WEB_CONCURRENCY": "2"})
        write("workers = 3")
        from_file = load(environ={"WEB_CONCURRENCY": "2"})
        from_environment = load(environ=environ)
        from_flag = load(flags, environ)

        assert [
            (each.settings.workers, each.sources["workers"])
            for each in (hinted, from_file, from_environment, from_flag)
        ] == [
            (2, "environment: WEB_CONCURRENCY"),
            (3, "pulpo-pool.toml: workers"),
            (4, "environment: PULPO_POOL_WORKERS"),
            (5, "command line: --workers"),
        ]

    def test_sources_complete_each_other(self, load, write):
        write('lease = 90\nname = "from-file"')

        settings = load({"workers": "2"}, {"PULPO_POOL_NAME": "from-environment"}).settings

        assert (settings.workers, settings.name, settings.lease) == (2, "from-environment", 90.0)

    def test_flags_that_were_not_given_say_nothing(self, load, write):
        write("workers = 3\nburst = true")

        settings = load({"workers": None, "burst": None, "queues": ()}).settings

        assert (settings.workers, settings.burst, settings.queues) == (3, True, ("default",))

    def test_the_table_in_pyproject_is_read(self, load, write):
        write('[project]\nname = "x"\n[tool.pulpo-pool]\nworkers = 7', "pyproject.toml")

        loaded = load()

        assert (loaded.settings.workers, loaded.sources["workers"]) == (
            7,
            "pyproject.toml: workers",
        )

    def test_its_own_file_goes_before_pyproject(self, load, write):
        write("[tool.pulpo-pool]\nworkers = 7", "pyproject.toml")
        write("workers = 3")

        assert load().settings.workers == 3

    @pytest.mark.parametrize("how", ["flag", "environment"])
    def test_another_file_can_be_named(self, load, write, tmp_path, how):
        write("workers = 3")
        (tmp_path / "etc").mkdir()
        path = write("workers = 9", "etc/other.toml")

        loaded = (
            load({"config": "etc/other.toml"})
            if how == "flag"
            else load(environ={"PULPO_POOL_CONFIG": str(path)})
        )

        assert loaded.settings.workers == 9

    def test_a_file_may_begin_with_a_byte_order_mark(self, load, write):
        write(b"\xef\xbb\xbfworkers = 3")

        assert load().settings.workers == 3

    @pytest.mark.parametrize(
        ("environ", "name"),
        [
            ({"PS": "web.1"}, "web.1"),
            ({"HONCHO_PROCESS_NAME": "worker.2"}, "worker.2"),
            ({"DYNO": "run.2"}, "run.2"),
            ({"PS": "a", "DYNO": "b"}, "a"),
        ],
    )
    def test_the_platform_names_the_pool(self, load, environ, name):
        assert load(environ=environ).settings.name == name

    def test_the_platforms_port_is_a_hint_for_this_machine_alone(self, load, write):
        hinted = load(environ={"PORT": "5000"})
        write('http = "0.0.0.0:9700"')
        explicit = load(environ={"PORT": "5000"})

        assert (hinted.settings.http, hinted.sources["http"]) == (
            "127.0.0.1:5000",
            "environment: PORT",
        )
        assert not hinted.is_given("http"), "another port will do"
        assert explicit.settings.http == "0.0.0.0:9700"
        assert explicit.is_given("http")

    def test_a_port_that_is_none_is_a_mistake_of_the_platform(self, problems):
        [problem] = problems(environ={"PORT": "tcp://10.0.0.1:80"})

        assert problem.startswith("environment: PORT: expected ")

    def test_the_environment_is_the_process_environment(self, monkeypatch):
        monkeypatch.setenv("PULPO_POOL_NAME", "here")

        assert read_environment()["PULPO_POOL_NAME"] == "here"

    def test_an_explicit_address_is_known_even_if_it_is_the_default(self, load):
        assert load({"http": Settings().http}).is_given("http")


class TestSecrets:
    def test_a_variable_can_name_a_file_with_the_value(self, load, write):
        path = write("file:/srv/queue.db\n", "secret")

        loaded = load(environ={"PULPO_POOL_BROKER_FILE": str(path)})

        assert loaded.settings.broker == "file:/srv/queue.db"
        assert loaded.sources["broker"] == "environment: PULPO_POOL_BROKER_FILE"

    @pytest.mark.parametrize("name", SETTING_FIELDS)
    def test_every_setting_can_be_in_a_file(self, load, write, name):
        setting = SETTING_FIELDS[name]
        by_kind = {"tables": '{"echo": {}}', "text": "file:x", "names": "a,b", "switch": "yes"}
        text = "127.0.0.1:1" if name == "http" else by_kind.get(setting.kind, "7")
        path = write(f" {[*setting.choices, text][0]}\r\n\n", "secret")
        variable = f"PULPO_POOL_{name.upper()}_FILE"
        loaded = load(environ={variable: str(path), "WEB_CONCURRENCY": "8"})

        assert loaded.sources[name] == f"environment: {variable}"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "No such file or directory"),
            (b"", "it is empty"),
            (b" \n", "it is empty"),
            (b"caf\xe9", "it is not UTF-8"),
            (b"x" * 1_048_577, "it is larger than 1,048,576 bytes"),
        ],
    )
    def test_a_secret_that_cannot_be_read_is_a_mistake(
        self, problems, write, tmp_path, content, reason
    ):
        path = tmp_path / "secret" if content is None else write(content, "secret")

        assert problems(environ={"PULPO_POOL_BROKER_FILE": str(path)}) == [
            f"environment: PULPO_POOL_BROKER_FILE: cannot read {str(path)!r}: {reason}"
        ]

    def test_value_and_file_exclude_each_other(self, problems, write):
        path = write("x", "secret")

        [problem] = problems(environ={"PULPO_POOL_NAME": "a", "PULPO_POOL_NAME_FILE": str(path)})

        assert problem == (
            "environment: PULPO_POOL_NAME_FILE: the same setting as environment: PULPO_POOL_NAME; "
            "keep one of them"
        )


class TestValues:
    def test_zero_and_false_mean_zero_and_false(self, load, write):
        write("drain-timeout = 0\nmax-empty-iterations = 0\nburst = false")

        in_file = load().settings
        in_environment = load(
            environ={"PULPO_POOL_MAX_EMPTY_ITERATIONS": "0", "PULPO_POOL_DRAIN_TIMEOUT": "0"}
        ).settings

        assert (in_file.drain_timeout, in_file.max_empty_iterations, in_file.burst) == (0, 0, False)
        assert (in_environment.drain_timeout, in_environment.max_empty_iterations) == (0, 0)

    @pytest.mark.parametrize("text", ["false", "0", "no", "off", "False", "OFF"])
    def test_a_variable_can_switch_off(self, load, write, text):
        write("burst = true")

        assert load(environ={"PULPO_POOL_BURST": text}).settings.burst is False

    def test_an_empty_variable_is_not_set(self, load):
        loaded = load(environ={"PULPO_POOL_WORKERS": "", "WEB_CONCURRENCY": "", "PS": ""})

        assert loaded.settings == Settings()

    @pytest.mark.parametrize("key", ["drain-timeout", "drain_timeout"])
    def test_keys_in_files_may_be_kebab_or_snake(self, load, write, key):
        write(f"{key} = 3")

        assert load().settings.drain_timeout == 3.0

    def test_the_ancestors_names_are_understood(self, load, write):
        write("shutdown_after_number_of_empty_iterations = 4\nsleep_duration = 2")

        settings = load().settings

        assert (settings.max_empty_iterations, settings.sleep_duration) == (4, 2.0)

    def test_the_ancestors_name_works_as_a_variable(self, load):
        variable = "PULPO_POOL_SHUTDOWN_AFTER_NUMBER_OF_EMPTY_ITERATIONS"

        assert load(environ={variable: "6"}).settings.max_empty_iterations == 6

    @pytest.mark.parametrize(
        "text",
        [
            "drain-timeout = 1\ndrain_timeout = 1",
            "shutdown-after-number-of-empty-iterations = 1\nmax-empty-iterations = 1",
        ],
    )
    def test_two_names_for_one_setting_are_a_mistake(self, problems, write, text):
        write(text)

        [problem] = problems()

        assert "the same setting as pulpo-pool.toml: " in problem

    def test_handlers_have_tables_of_options(self, load, write):
        write('[handlers.echo]\npath = "out"\ndepth = 0\n[handlers.send_email.smtp]\nport = 25')

        assert load().settings.handlers == {
            "echo": {"path": "out", "depth": 0},
            "send_email": {"smtp": {"port": 25}},
        }

    def test_options_of_handlers_can_be_json_in_a_variable(self, load):
        environ = {"PULPO_POOL_HANDLERS": '{"echo": {"path": "out"}}'}

        assert load(environ=environ).settings.handlers == {"echo": {"path": "out"}}

    @pytest.mark.parametrize("text", ['queues = ["a", "b"]', 'queues = "a, b"'])
    def test_queues_are_a_list_or_words_with_commas(self, load, write, text):
        write(text)

        assert load().settings.queues == ("a", "b")

    def test_a_choice_in_a_variable_may_be_in_capitals(self, load):
        assert load(environ={"PULPO_POOL_LOG_LEVEL": "INFO"}).settings.log_level == "info"

    def test_the_queue_lies_in_the_state_directory_unless_said(self):
        settings = Settings(state_dir="/srv/50% of?it")

        assert settings.broker_url == "file:/srv/50%25 of%3Fit/queue.db"

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:9700", ("127.0.0.1", 9700)),
            ("localhost:0", ("localhost", 0)),
            ("[::1]:9700", ("::1", 9700)),
            ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ],
    )
    def test_addresses(self, text, address):
        assert parse_address(text) == address
        assert Settings(http=text).http_address == address

    def test_off_is_no_address(self):
        assert Settings(http="off").http_address is None

    @pytest.mark.parametrize(
        "text",
        ["", "9700", ":9700", "localhost", "::1:9700", "[::1]", "a:b", "a:-1", "a:65536", "a b:1"],
    )
    def test_what_is_no_address(self, text):
        with pytest.raises(Mismatch):
            parse_address(text)


class TestMistakes:
    def test_all_mistakes_of_all_sources_are_told_at_once(self, problems, write):
        write('workrs = 3\nlease = "long"\nsleep-duration = 0')

        lines = problems(
            {"workers": "many", "http": "nowhere"},
            {"PULPO_POOL_SERIALIZER": "pickle", "PULPO_POOL_MAX_CRASHES": "0"},
        )

        assert sorted(lines) == sorted(
            [
                "pulpo-pool.toml: workrs: no such setting; did you mean 'workers'?",
                "pulpo-pool.toml: lease: expected a number from 1 to 1,728,000, got 'long'",
                (
                    "pulpo-pool.toml: sleep-duration: expected a number above 0, up to 1,728,000, "
                    "got 0"
                ),
                (
                    "command line: --workers: expected a whole number from 1 to 256, or auto, "
                    "got 'many'"
                ),
                (
                    "command line: --http: expected HOST:PORT (such as 127.0.0.1:9700) or off, "
                    "got 'nowhere'"
                ),
                "environment: PULPO_POOL_SERIALIZER: expected 'json' or 'msgpack', got 'pickle'",
                (
                    "environment: PULPO_POOL_MAX_CRASHES: expected a whole number from 1 to "
                    "2,147,483,648, got '0'"
                ),
            ]
        )

    def test_the_error_text_has_a_line_for_each(self, load, write):
        write("a = 1\nb = 2")

        with pytest.raises(ConfigError, match=r"a: no such setting\n.*b: no such setting"):
            load()

    @pytest.mark.parametrize(
        "text",
        [
            "workers = true",
            'workers = "8"',
            "workers = 1.5",
            "workers = 0",
            "workers = 257",
            "drain-timeout = -1",
            "drain-timeout = inf",
            "drain-timeout = nan",
            "lease = 0.5",
            "burst = 1",
            "name = 5",
            "name = ''",
            "name = '.'",
            "name = '..'",
            "name = 'a/b'",
            'name = "a\\u0000b"',
            f"name = '{'n' * 65}'",
            "queues = []",
            "queues = ['']",
            "queues = [5]",
            f"queues = ['{'q' * 201}']",
            "state-dir = ''",
            'state-dir = "a\\u0000b"',
            "http = 9700",
            "on-expired = 'drop'",
            "handlers = 5",
            "handlers.echo = 5",
            "log-level = 2026-01-01",
            "broker = 'queue.db'",
            "broker = 'fil:queue.db'",
        ],
    )
    def test_what_a_setting_cannot_be(self, problems, write, text):
        write(text)

        [problem] = problems()

        assert problem.startswith("pulpo-pool.toml: ")
        assert "expected" in problem or "unknown scheme" in problem

    @pytest.mark.parametrize("text", ["workers = ", "\xff", "a = 1\na = 2"])
    def test_a_file_that_is_no_toml(self, problems, write, text):
        write(text.encode("latin-1"))

        [problem] = problems()

        assert "is not valid TOML" in problem

    def test_a_named_file_has_to_exist(self, problems):
        [problem] = problems({"config": "none.toml"})

        assert problem.endswith("none.toml: cannot be read: No such file or directory")

    def test_a_file_in_another_format(self, problems, write):
        write("{}", "pulpo.yaml")

        [problem] = problems({"config": "pulpo.yaml"})

        assert problem.endswith("pulpo.yaml: expected a .toml file, or pulpo-messaging's .json")

    @pytest.mark.parametrize("text", ["tool = 5", "[tool]\npulpo-pool = 5"])
    def test_a_strange_pyproject(self, load, write, text):
        write(text, "pyproject.toml")

        if text == "tool = 5":
            assert load().settings == Settings()
        else:
            with pytest.raises(ConfigError, match=r"tool\.pulpo-pool: expected a table"):
                load()

    def test_a_mistyped_variable(self, problems):
        [problem] = problems(environ={"PULPO_POOL_WORKRES": "8"})

        assert problem == (
            "environment: PULPO_POOL_WORKRES: no such setting; did you mean 'PULPO_POOL_WORKERS'?"
        )

    def test_a_variable_far_from_any_setting_is_a_warning(self, load):
        loaded = load(environ={"PULPO_POOL_IMAGE_DIGEST": "sha256:1"})

        assert loaded.warnings == ("environment: PULPO_POOL_IMAGE_DIGEST: no such setting",)

    def test_variables_that_kubernetes_writes_for_a_service_are_no_settings(self, load):
        loaded = load(
            environ={
                "PULPO_POOL_SERVICE_HOST": "10.0.0.1",
                "PULPO_POOL_SERVICE_PORT": "80",
                "PULPO_POOL_SERVICE_PORT_HTTP": "80",
                "PULPO_POOL_PORT": "tcp://10.0.0.1:80",
                "PULPO_POOL_PORT_80_TCP": "tcp://10.0.0.1:80",
                "PULPO_POOL_PORT_80_TCP_ADDR": "10.0.0.1",
                "PULPO_POOL_HTTP_SERVICE_HOST": "10.0.0.2",
                "PULPO_POOL_HTTP_PORT": "tcp://10.0.0.2:80",
            }
        )

        assert (loaded.settings, loaded.warnings) == (Settings(), ())

    @given(
        st.dictionaries(
            st.sampled_from([setting.variable for setting in SETTING_FIELDS.values()]),
            st.text(max_size=12),
        )
    )
    def test_no_text_in_the_environment_raises_anything_else(self, tmp_path_factory, environ):
        directory = tmp_path_factory.getbasetemp()

        with suppress(ConfigError):
            settings = load_settings({}, directory=directory, environ=environ).settings

            assert 1 <= settings.workers <= 256


class TestGrace:
    """A drain that the platform cuts short loses what it was for, so somebody has to say it."""

    @pytest.mark.parametrize(
        ("drain", "environ", "fits"),
        [
            ("25", {}, True),  # who knows
            ("25", {"PULPO_POOL_GRACE": "30"}, True),
            ("26", {"PULPO_POOL_GRACE": "30"}, False),
            ("0", {"PULPO_POOL_GRACE": "3"}, False),
            ("25", {"DYNO": "worker.1"}, True),
            ("60", {"DYNO": "worker.1"}, False),
            ("60", {"DYNO": "worker.1", "PULPO_POOL_GRACE": "90"}, True),
        ],
    )
    def test_a_drain_must_fit_into_it(self, load, drain, environ, fits):
        assert (load({"drain_timeout": drain}, environ).warnings == ()) is fits

    def test_the_warning_says_who_says_what_and_what_to_do(self, load, write):
        write("drain-timeout = 60")

        [warning] = load(environ={"DYNO": "worker.1"}).warnings

        assert warning == (
            "drain-timeout: 60 s (from pulpo-pool.toml: drain-timeout), and 5 s for leaving, do "
            "not fit into the 30 s that the platform waits before it kills (grace, from "
            "environment: DYNO); jobs would be killed instead of handed back: set it to at most "
            "25 s or let the platform wait longer"
        )


def test_every_setting_says_what_it_is_for():
    undescribed = [name for name, setting in SETTING_FIELDS.items() if not setting.description]

    assert undescribed == []


def test_no_two_settings_share_a_short_option():
    shorts = [setting.short for setting in SETTING_FIELDS.values() if setting.short]

    assert len(set(shorts)) == len(shorts)
