"""What is built from this folder: an sdist and a wheel that have everything, and install."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from pages import README, ROOT, Reader, blocks

import pulpo_pool

PACKAGE = ROOT / "pulpo_pool"


def run(*command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the sdist, and the wheel from it, with what is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory):
    """A folder with the wheel installed in its .venv; what it depends on is borrowed from here."""
    folder = tmp_path_factory.mktemp("home")
    environment = folder / ".venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    pip = [sys.executable, "-m", "pip", "--python", environment, "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def outside(home):
    """An environment in which nothing of this checkout can be imported by accident."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def test_the_sdist_has_what_git_has(built):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so git does not know these files")
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    known = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    files = {name for name in known.splitlines() if (ROOT / name).exists()}

    assert packed == files | {"PKG-INFO"}


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    assert packed == {str(path.relative_to(ROOT)) for path in files}
    assert {"pulpo_pool/py.typed", "pulpo_pool/queues/file.sql"} <= packed


def test_the_wheel_says_who_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"pulpo_pool-{pulpo_pool.__version__}.dist-info"
        metadata = message_from_string(archive.read(f"{info}/METADATA").decode())
        scripts = archive.read(f"{info}/entry_points.txt").decode()

    assert metadata["Version"] == pulpo_pool.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_payload() == README.read_text()
    assert "pulpo-pool = pulpo_pool.cli.entry:main" in scripts
    assert "pulpo_pool = pulpo_pool.pytest_plugin" in scripts


@pytest.mark.parametrize("program", [["pulpo-pool"], ["python", "-m", "pulpo_pool"]])
def test_the_installed_program_has_one_version(home, outside, program):
    binary = home / ".venv" / "bin" / program[0]
    said = run(binary, *program[1:], "--version", env=outside, cwd=home)

    assert said == f"pulpo-pool {pulpo_pool.__version__}\n"


def test_what_is_installed_is_what_runs(home, outside):
    said = run(
        home / ".venv" / "bin" / "python",
        "-c",
        "import pulpo_pool; print(pulpo_pool.__file__)",
        env=outside,
        cwd=home,
    )

    assert Path(said.strip()).is_relative_to(home)


def test_readmes_first_command_once_it_has_installed(home):
    """Installing is the fixture's, which asks no network; the rest is typed as it stands."""
    command = blocks(README)[0].text.strip()
    installing = "python3 -m venv .venv && .venv/bin/pip install --quiet . && "
    reader = Reader(home)
    reader.environment.pop("PYTHONPATH", None)
    reader.follow(command.removeprefix(installing).replace(" && ", "\n"))
    written = list((home / ".pulpo" / "sample-output").iterdir())

    assert command.startswith(installing)
    assert len(written) == 100
