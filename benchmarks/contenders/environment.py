"""The peers' virtualenv: made at first use, made anew when what belongs there has changed.

Our own dependencies are there as well, for the pools that run the same heavy app as the peers.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "peers.txt"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
HOME = Path(__file__).parents[2] / ".benchmarks-venv"


@functools.cache
def programs() -> Path:
    """Return the folder of the peers' programs."""
    installed = HOME / "installed.txt"
    ours = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    wanted = REQUIREMENTS.read_text() + "\n".join(ours)
    if not installed.exists() or installed.read_text() != wanted:
        print(f"installing the peers into {HOME}", file=sys.stderr)
        venv.create(HOME, clear=True, with_pip=True)
        pip = [str(HOME / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS), *ours], check=True)
        installed.write_text(wanted)  # last: an installation that was cut off is made again
    return HOME / "bin"
