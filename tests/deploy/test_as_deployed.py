"""A pool as the manifests start it: PID 1, no capability, nothing writable but its volumes."""

from __future__ import annotations

import base64
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import kustomize
import psutil
import pytest
from manifests import KUBERNETES, Pod
from pool import PoolProcess, eventually
from servers import Beanstalkd

# Its volumes stay writable, as mounts of their own.
CONTAINER = """
set -e
mount --make-rprivate /
for volume in "$STATE" "$TMPDIR"; do mount --bind "$volume" "$volume"; done
mount -o remount,bind,ro /
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""
FINISHED = "pulpo_jobs_finished_total"
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")

APP = """
import pathlib, tempfile
from pulpo_pool import Fatal, Pulpo

pulpo = Pulpo()


@pulpo.job()
def spool(n):
    with tempfile.TemporaryFile() as file:
        file.write(b"there is room in /tmp")


@pulpo.job()
def litter(n):
    try:
        pathlib.Path("litter").touch()
    except OSError as error:
        raise Fatal(error.strerror)
"""


def _why_not():
    """Return what keeps this machine from such a container; nothing if it can have one."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "setpriv"))):
        return "namespaces and capabilities are Linux's, and util-linux speaks of them"
    script = ("sh", "-ec", "mount --make-rprivate / && mount -o remount,bind,ro /")
    tried = subprocess.run([*UNSHARE, *script], capture_output=True, text=True, check=False)
    return f"no container may be made here: {tried.stderr.strip()}" if tried.returncode else ""


WHY_NOT = _why_not()


@pytest.fixture
def root():
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="pulpo-") as folder:
        yield Path(folder)


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_it_starts_answers_its_probes_works_and_drains(root):
    with Beanstalkd() as server:
        run_as_deployed(root, server.url)


def run_as_deployed(root, broker):
    resources = kustomize.render(KUBERNETES / "overlays" / "prod")
    url = base64.b64encode(f"{broker}\n".encode()).decode()
    resources["Secret", "pulpo-pool-broker"] = {"data": {"url": url}}
    pod = Pod(resources)
    environ = pod.laid_out(root)
    (root / "shop.py").write_text(textwrap.dedent(APP))
    state, tmp = (str(root / pod.mounts[name].lstrip("/")) for name in ("state", "tmp"))
    # Where the volumes lie here, and a port of this test's own.
    moved = {"STATE": state, "TMPDIR": tmp, "PULPO_POOL_STATE_DIR": state}
    with PoolProcess(
        root,
        http=None,
        prefix=(*UNSHARE, "sh", "-c", CONTAINER, "sh"),
        **environ | moved | {"PULPO_POOL_HTTP": "127.0.0.1:0"},
    ) as pool:
        pool.broker = broker
        pool.run_directory = root / state / "run" / environ["PULPO_POOL_NAME"]
        pool.ready()
        probes = {
            name: pool.http(pod.container[name]["httpGet"]["path"])[0]
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        for name in ("spool", "litter"):
            pool.publish(name, [{"n": 1}])
        for name, outcome in (("spool", "success"), ("litter", "buried")):
            series = {"request_type": name, "outcome": outcome}
            eventually(lambda series=series: pool.counted(FINISHED, **series) == 1, what=name)
        master = pool.status()["master"]
        [init] = psutil.Process(pool.pid).children()
        status = Path(f"/proc/{init.pid}/status").read_text()
        init.send_signal(signal.SIGTERM)
        code = pool.wait()

    assert probes == dict.fromkeys(probes, 200)
    assert (master["pid"], master["workers_wanted"]) == (1, 4)
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert code == 0
