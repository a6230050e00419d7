"""The image, and compose.yaml, which starts it beside all it works with."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import compose_spec.compose_spec
import pytest
import yaml
from manifests import ROOT

from pulpo_pool.cli.commands import route
from pulpo_pool.settings import load_settings
from pulpo_pool.settings.sources import CONFIG_FILE

DOCKER = ROOT / "deploy" / "docker"
COMPOSE = ROOT / "deploy" / "compose.yaml"
DOCKERFILES = ("Dockerfile", "beanstalkd.Dockerfile")


def instructions(name):
    """Return (word, rest) of each instruction in a Dockerfile."""
    text = re.sub(r"^#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def last(name, word):
    return [rest for each, rest in instructions(name) if each == word][-1]


def copied(name):
    """Return what is copied from the folder that is built in."""
    plain = [shlex.split(rest) for word, rest in instructions(name) if word == "COPY"]
    return [path for words in plain if "--from" not in words[0] for path in words[:-1]]


@pytest.fixture
def services():
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.fixture
def pool(services):
    return services["pool"]


def hadolint(path):
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def seconds(duration):
    return int(duration.removesuffix("s"))


class TestImages:
    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_hadolint_has_nothing_to_say(self, name):
        assert hadolint(DOCKER / name) == (0, "")

    def test_hadolint_would_say_it(self, tmp_path):
        (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")
        code, said = hadolint(tmp_path / "Dockerfile")

        assert code != 0
        assert "DL3006" in said

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_the_program_is_pid_1_and_nobodys_root(self, name):
        """In the exec form no shell stands between it and TERM."""
        entrypoint = json.loads(last(name, "ENTRYPOINT"))

        assert entrypoint == ["pulpo-pool" if name == "Dockerfile" else "beanstalkd"]
        assert re.fullmatch(r"1000[12]:1000[12]", last(name, "USER"))
        assert last(name, "STOPSIGNAL") == "SIGTERM"

    def test_its_command_is_run(self):
        assert route(json.loads(last("Dockerfile", "CMD"))) == ["run"]

    def test_what_it_copies_is_there_and_let_through(self):
        ignored = (ROOT / ".dockerignore").read_text().split()
        sources = copied("Dockerfile")

        assert ignored[0] == "*"
        assert "pulpo_pool" in sources
        assert all((ROOT / source).exists() for source in sources)
        assert {f"!{source}" for source in sources} == {line for line in ignored if line[0] == "!"}

    def test_its_settings_are_right_and_are_where_they_are_looked_for(self):
        settings = load_settings({}, directory=DOCKER, environ={}).settings
        made = last("Dockerfile", "RUN").split()

        assert f"deploy/docker/{CONFIG_FILE}" in copied("Dockerfile")
        assert settings.http_address == ("0.0.0.0", int(last("Dockerfile", "EXPOSE")))
        assert {settings.state_dir, last("Dockerfile", "WORKDIR")} < set(made)
        assert "--owner=10001" in made


class TestCompose:
    def test_it_keeps_to_the_specification(self):
        compose_spec.compose_spec.PyCompose.from_yaml(COMPOSE.read_text()).validate()

    @pytest.mark.parametrize(
        "wrong",
        [("read_only:", "readonly:"), ("stop_grace_period: 30s", "stop_grace_period: a while")],
    )
    def test_what_the_specification_does_not_know_is_found(self, wrong):
        text = COMPOSE.read_text().replace(*wrong)

        with pytest.raises(ValueError):
            compose_spec.compose_spec.PyCompose.from_yaml(text).validate()

    def test_whatever_is_mounted_or_built_is_there(self, services):
        for service in services.values():
            for volume in service.get("volumes", []):
                source = volume.partition(":")[0]
                assert not source.startswith(".") or (COMPOSE.parent / source).exists(), source
            if "build" in service:
                context = COMPOSE.parent / service["build"]["context"]
                assert (context / service["build"]["dockerfile"]).is_file()

    def test_the_pools_settings_are_read_without_a_doubt(self, pool):
        loaded = load_settings({}, directory=DOCKER, environ=pool["environment"])
        settings = loaded.settings

        assert loaded.warnings == ()
        assert route(pool["command"]) == ["run"]
        assert settings.broker == "beanstalkd://beanstalkd:11300"
        assert settings.grace == seconds(pool["stop_grace_period"])
        assert settings.workers * settings.max_memory_hard < 1 << 30
        assert pool["deploy"]["resources"]["limits"]["memory"] == "1G"
        assert settings.state_dir in pool["volumes"]

    def test_everybody_finds_everybody(self, services, pool):
        settings = load_settings({}, directory=DOCKER, environ=pool["environment"]).settings
        _, port = settings.http_address
        scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
        [found] = scraped["scrape_configs"][0]["dns_sd_configs"]
        grafana = ROOT / "grafana" / "provisioning"
        [source] = yaml.safe_load((grafana / "datasources" / "pulpo-pool.yaml").read_text())[
            "datasources"
        ]
        [provider] = yaml.safe_load((grafana / "dashboards" / "pulpo-pool.yaml").read_text())[
            "providers"
        ]
        mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])

        assert settings.queues == ("default",)
        assert found["names"] == ["pool"]
        assert found["port"] == port
        assert f":{port}/readyz" in pool["healthcheck"]["test"][-1]
        assert source["url"] == "http://prometheus:9090"
        assert mounted["../grafana/dashboards"] == provider["options"]["path"]
        assert mounted["../grafana/provisioning"] == "/etc/grafana/provisioning"

    def test_prometheus_is_set_as_the_one_that_is_tried(self):
        """But for the place of the pools, which are other machines there."""
        here = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
        tried = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
        del here["scrape_configs"][0]["dns_sd_configs"]
        del tried["scrape_configs"][0]["static_configs"]

        assert here == tried

    def test_only_this_machine_reaches_it(self, services):
        ports = [port for service in services.values() for port in service.get("ports", [])]

        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)
