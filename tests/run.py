"""Pass all tests on a fresh machine: `python3 tests/run.py`, or a part: `… tests/unit -k lease`.

Makes a virtual environment in .venv, installs the project with its test tools and, as root on
Debian, the servers that tests talk to, and hands the rest of the command line to pytest. Needs
Python 3.11 or newer, and nothing else.

When all tests were asked for and a few failed, those few get one more try, as CPython's own test
runner gives: on a machine shared with strangers a process may not run for seconds. Who passes
only then is named at the end, since a test that needs it is a defect, of the test or of the pool.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "installed-for"
LAST_FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
MOST_TRIED_AGAIN = 3
AT_ONCE = "3"  # tests wait more than they work: on two cores two thirds of the time of one by one


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this may have an older one
        print("tests/run.py: Python 3.11 or newer is needed, this is", sys.version.split()[0])
        return 2
    install()
    subprocess.check_call([str(PYTHON), str(ROOT / "tests" / "servers.py")])
    if arguments:
        return pytest(*arguments)
    return all_tests()


def pytest(*arguments: str) -> int:
    return subprocess.call([str(PYTHON), "-m", "pytest", *arguments], cwd=ROOT)


def all_tests() -> int:
    """Run everything; a few that failed are tried once more, and named."""
    verdict = pytest("--cache-clear", "--numprocesses", AT_ONCE)
    if verdict != 1 or not LAST_FAILED.is_file():
        return verdict
    failed = list(json.loads(LAST_FAILED.read_text()))
    if len(failed) > MOST_TRIED_AGAIN:
        return verdict
    verdict = pytest("--last-failed", "--last-failed-no-failures", "none")
    if verdict == 0:
        print("UNSTEADY: these failed, and passed when tried again:", *failed, sep="\n  ")
    return verdict


def install() -> None:
    """Install what pyproject.toml asks for, once for each version of it."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    if not PYTHON.exists():
        print("making a virtual environment in", ENVIRONMENT, flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
    print("installing the project and its test tools", flush=True)
    subprocess.check_call(
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]"]
    )
    STAMP.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
