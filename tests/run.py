"""Pass all tests on a fresh machine: `python3 tests/run.py`, or a part: `… tests/unit -k lease`.

Makes a virtual environment in .venv, installs the project with its test tools and, as root on
Debian, the servers that tests talk to, and hands the rest of the command line to pytest. Needs
Python 3.11 or newer, and nothing else.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "installed-for"


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this may have an older one
        print("tests/run.py: Python 3.11 or newer is needed, this is", sys.version.split()[0])
        return 2
    install()
    subprocess.check_call([str(PYTHON), str(ROOT / "tests" / "servers.py")])
    return subprocess.call([str(PYTHON), "-m", "pytest", *arguments], cwd=ROOT)


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
