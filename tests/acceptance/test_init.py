"""`pulpo-pool init`: what it writes runs, its tests pass, and it harms nothing that is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pages import ROOT, Reader
from pool import queue_in

from pulpo_pool.cli.main import cli
from pulpo_pool.cli.scaffold import EXTRAS, Scaffold, filled, template
from pulpo_pool.queues.adapter import QueueStats
from pulpo_pool.settings import SETTING_FIELDS, load_settings

APP = ["jobs.py", "test_jobs.py", "pulpo-pool.toml"]


@pytest.fixture
def init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def init(*arguments):
        return CliRunner().invoke(cli, ["init", *arguments])

    return init


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def commands_under(title, text):
    """Return the lines that are printed below a title."""
    _, _, below = text.partition(f"{title}:\n")
    return re.match(r"(?:  .*\n)*", below)[0].replace("\n  ", "\n").strip()


KILL_A_WORKER = (
    "kill -9 $(pulpo-pool status --json | "
    """python -c 'import json, sys; """
    """print(next(w["pid"] for w in json.load(sys.stdin)["workers"] if w["pid"]))')"""
)


def test_from_an_empty_folder_typing_only_what_is_printed(tmp_path):
    """Tests, publishing, a pool that works it off, a reload, a drain; and one kill between."""
    reader = Reader(tmp_path)
    said = reader.type("pulpo-pool init 'my shop' --with procfile")
    printed = [commands_under("Next", said), KILL_A_WORKER, commands_under("elsewhere", said)]
    reader.follow("\n".join(printed))
    shop = tmp_path / "my shop"
    log = (shop / "pool.log").read_text()
    with queue_in(shop) as queue:
        left = sum(queue.stats().values(), QueueStats())

    assert "python -m pytest" in said
    assert (shop / "greetings.txt").read_text() == "hello world\n"
    assert re.search(r"jobs.py has \d+ words", log)
    assert "generation 2" in log  # it was reloaded
    assert "was killed by SIGKILL" in log  # and somebody was
    assert left == QueueStats()
    assert "honcho start" in commands_under("Or, deployed", said)


def test_what_is_written_is_tidy(init, tmp_path):
    init(".", "--with", ",".join(EXTRAS))
    for task in (
        ["check", "--select", "E,F,I,B,UP,PT,SIM"],
        ["format", "--check"],
    ):
        subprocess.run(
            [sys.executable, "-m", "ruff", *task, "--isolated", "--quiet", tmp_path], check=True
        )


def test_the_settings_it_suggests_are_settings(init, tmp_path):
    """Those in comments too: somebody takes the mark away."""
    init()
    settings = tmp_path / "pulpo-pool.toml"
    settings.write_text(re.sub(r"^# (?=[a-z-]+ = )", "", settings.read_text(), flags=re.MULTILINE))
    loaded = load_settings({}, directory=tmp_path, environ={})

    assert loaded.settings.app == "jobs:pulpo"
    assert loaded.settings.max_memory == 200_000_000
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    "obstacle", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")]
)
@pytest.mark.parametrize("name", [*APP, "Procfile"])
def test_nothing_is_overwritten_and_nothing_written_beside_it(init, tmp_path, name, obstacle):
    obstacle(tmp_path / name)
    if name == "pulpo-pool.toml":  # then only what is asked for is written
        (tmp_path / "Procfile").touch()
    before = sorted(tmp_path.iterdir())
    result = init("--with", "procfile,docker")

    assert result.exit_code == 1
    assert name in result.stderr or "Procfile" in result.stderr
    assert "is there already" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_where_a_folder_has_to_be_is_in_the_way(init, tmp_path):
    (tmp_path / "deploy").touch()
    result = init("--with", "systemd")

    assert result.exit_code == 1
    assert "is there already: deploy\n" in result.stderr
    assert files_in(tmp_path) == ["deploy"]


def test_a_file_that_appears_at_the_last_moment_is_kept(tmp_path):
    scaffold = Scaffold(tmp_path, ())
    taken = scaffold.in_the_way()
    (tmp_path / "jobs.py").write_text("mine")

    assert taken == []
    with pytest.raises(FileExistsError):
        scaffold.write()
    assert (tmp_path / "jobs.py").read_text() == "mine"


def test_a_second_time_it_says_how_to_add_to_the_app(init, tmp_path):
    first, second = init(), init()

    assert first.exit_code == 0
    assert second.exit_code == 1
    assert "jobs.py, test_jobs.py, pulpo-pool.toml" in second.stderr
    assert "--with procfile,systemd,docker,kubernetes" in second.stderr


def test_an_app_can_be_given_more_later(init, tmp_path):
    init()
    (tmp_path / "jobs.py").write_text("mine")
    result = init("--with", "docker", "--with", "procfile")

    assert result.exit_code == 0
    assert files_in(tmp_path) == sorted(
        [*APP, "Dockerfile", ".dockerignore", "requirements.txt", "Procfile"]
    )
    assert (tmp_path / "jobs.py").read_text() == "mine"
    assert "Next:" not in result.stdout


def test_dry_run_shows_every_text_and_writes_nothing(init, tmp_path):
    result = init("new/shop", "--dry-run", "--with", "procfile")

    assert result.exit_code == 0
    assert "==> new/shop/jobs.py <==\n" in result.stdout
    assert "==> new/shop/Procfile <==\nworker: " in result.stdout
    assert "def greet(name: str)" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_tells_what_is_in_the_way_too(init, tmp_path):
    (tmp_path / "jobs.py").touch()
    result = init("--dry-run")

    assert result.exit_code == 1
    assert "is there already: jobs.py\n" in result.stderr


def test_a_mistyped_extra(init, tmp_path):
    result = init("--with", "procfile,kubernets")

    assert result.exit_code == 2
    assert "got 'kubernets'; did you mean 'kubernetes'?" in result.stderr
    assert list(tmp_path.iterdir()) == []


# -- what deploys it --------------------------------------------------------------------------

ODD = "Größe & 50%n $(x)"  # a folder that would be noticed if it were not quoted


@pytest.fixture
def deployed(init, tmp_path):
    result = init(ODD, "--with", ",".join(EXTRAS))
    assert result.exit_code == 0, result.stderr
    return tmp_path / ODD


DEPLOY = ROOT / "deploy"


def test_the_procfile_is_the_one_that_is_tested_with_honcho(deployed):
    assert (deployed / "Procfile").read_text() == (ROOT / "Procfile").read_text()


def test_the_unit_is_the_one_in_deploy_with_its_names_filled_in(tmp_path):
    words = {"name": "pulpo-pool", "folder": "/srv/pulpo-pool"}
    words["program"] = "/opt/pulpo-pool/bin/pulpo-pool"
    ours = filled(template("unit.service"), words)
    theirs = (DEPLOY / "systemd" / "pulpo-pool.service").read_text()

    assert ours[ours.index("[Unit]") :] == theirs[theirs.index("[Unit]") :]


def test_the_image_ends_as_the_one_in_deploy(deployed):
    """They differ in where the program comes from, not in how it runs."""
    ours, theirs = (
        set((folder / "Dockerfile").read_text().splitlines())
        for folder in (deployed, DEPLOY / "docker")
    )
    of_its_own = {line for line in theirs - ours if not line.startswith(("#", "COPY", "    "))}

    assert of_its_own == {
        "WORKDIR /src",
        "RUN /opt/pulpo-pool/bin/pip install --no-cache-dir --compile .",
    }


def test_the_pod_is_the_one_in_deploy_but_for_what_is_the_apps(deployed):
    ours, our_budget = yaml.safe_load_all((deployed / "deploy" / "kubernetes.yaml").read_text())
    base = DEPLOY / "kubernetes" / "base"
    theirs, their_budget = (
        yaml.safe_load((base / name).read_text()) for name in ("deployment.yaml", "pdb.yaml")
    )
    own = {"env", "image", "resources", "volumeMounts"}
    pods = [each["spec"]["template"]["spec"] for each in (ours, theirs)]
    containers = [
        {key: value for key, value in pod["containers"][0].items() if key not in own}
        for pod in pods
    ]
    budgets = [
        {key: value for key, value in each["spec"].items() if key != "selector"}
        for each in (our_budget, their_budget)
    ]

    assert containers[0] == containers[1]
    assert budgets[0] == budgets[1]
    assert pods[0]["securityContext"] == pods[1]["securityContext"]
    assert ours["spec"]["strategy"] == theirs["spec"]["strategy"]
    assert {"automountServiceAccountToken", "enableServiceLinks"} <= pods[0].keys()


def test_systemd_finds_nothing_wrong_with_the_unit(deployed):
    """`verify` exits with 0 even for unknown keys, but says so."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    unit = deployed / "deploy" / "gr-e-50-n-x.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    said = unit.read_text()

    assert (done.returncode, done.stderr) == (0, "")
    assert f"WorkingDirectory={str(deployed).replace('%', '%%')}\n" in said


def test_the_dockerfile_copies_what_is_there_and_sets_what_can_be_set(deployed):
    text = (deployed / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE)
    variables = {field.variable for field in SETTING_FIELDS.values()}

    assert [path for path in copied if not (deployed / path).exists()] == []
    assert set(re.findall(r"PULPO_POOL_\w+", text)) <= variables
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    assert 'ENV PATH="/opt/pulpo-pool/bin:$PATH"' in text


def test_hadolint_finds_nothing_wrong_with_the_dockerfile(deployed):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, deployed / "Dockerfile"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_manifests_say_only_what_the_program_knows(deployed):
    deployment, budget = yaml.safe_load_all((deployed / "deploy" / "kubernetes.yaml").read_text())
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    settings = load_settings({}, directory=deployed, environ=env)
    probes = [value for key, value in container.items() if key.endswith("Probe")]
    mounts = {each["mountPath"] for each in container["volumeMounts"]}

    assert settings.warnings == ()
    assert str(spec["terminationGracePeriodSeconds"]) == env["PULPO_POOL_GRACE"]
    assert settings.settings.http_address == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert settings.settings.state_dir in mounts
    assert {probe["httpGet"]["path"] for probe in probes} <= {"/healthz", "/readyz"}
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert deployment["metadata"]["name"] == "gr-e-50-n-x"


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_the_manifests(deployed, version):
    validate = pytest.importorskip("kubernetes_validate")
    for resource in yaml.safe_load_all((deployed / "deploy" / "kubernetes.yaml").read_text()):
        validate.validate(resource, version, strict=True)
