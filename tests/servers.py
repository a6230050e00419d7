"""Real servers for tests, each on a port and in a folder of its own, ended by its pid.

`python tests/servers.py` installs what is missing, which needs Debian or Ubuntu and root.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 20.0  # seconds a server may take to come up or to go
PACKAGES = {  # by program
    "beanstalkd": "beanstalkd",
    "strace": "strace",
    "systemd-analyze": "systemd",
}
# Debian's package would start a Prometheus of its own, and wants 300 MB of JavaScript beside it:
# its two programs need neither, so they are only unpacked. Since Debian 13 they are two packages.
UNPACKED = {"prometheus": ["prometheus"], "promtool": ["promtool", "prometheus"]}
SHELF = Path(sys.prefix) / "servers"


class CannotHave(Exception):
    """The server's program is not here and cannot be installed."""


@functools.cache
def program(name):
    """Return the path of a server's program, installed now if need be; raise CannotHave."""
    path = found(name)
    if path is not None:
        return path
    if name in UNPACKED:
        return unpacked(name)
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise CannotHave(f"{name} is not installed; install the Debian package {PACKAGES[name]}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", PACKAGES[name]]
    said = ""
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=300
        )
        said = done.stderr.strip()
        path = found(name)
        if path is not None:
            return path
    raise CannotHave(f"{name} is not installed, and apt-get cannot: {said[-500:]}")


def unpacked(name):
    """Return a program out of the first Debian package that has it."""
    packages = UNPACKED[name]
    if shutil.which("apt-get") is None:
        raise CannotHave(f"{name} is not installed; it is part of {' or '.join(packages)}")
    SHELF.mkdir(parents=True, exist_ok=True)
    said = ""
    for package in packages:
        said = unpack(package)
        if (SHELF / name).exists():
            return str(SHELF / name)
    raise CannotHave(f"{name} is not installed, and apt-get cannot: {said[-500:]}")


def unpack(package):
    """Fetch a Debian package and take its programs out of it; return what apt-get says."""
    said = ""
    with tempfile.TemporaryDirectory(dir=SHELF) as folder:
        download = ["apt-get", "download", "--option", "APT::Sandbox::User=root", package]
        for command in (download, ["apt-get", "update"], download):
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
            )
            said = done.stderr.strip()
            for file in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg-deb", "--extract", file, folder], check=True)
                for program in (Path(folder) / "usr" / "bin").iterdir():
                    program.replace(SHELF / program.name)
                return ""
    return said


def found(name):
    places = os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", str(SHELF)
    return shutil.which(name, path=":".join(places))


def needed(name):
    """Return the path of a server's program; without it fail in CI, skip on a laptop."""
    import pytest

    try:
        return program(name)
    except (CannotHave, subprocess.SubprocessError) as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))


class Beanstalkd:
    """A beanstalkd of one's own; `-b` with a `folder`. It may be killed and started again.

    `log_file` is the size of each file of its log in bytes.
    """

    host = "127.0.0.1"

    def __init__(self, *, folder=None, largest=2_000_000, port=0, log_file=0):
        self.program = needed("beanstalkd")
        self.options = ["-l", self.host, "-z", str(largest)]
        self.folder = folder
        if folder is not None:
            folder.mkdir(exist_ok=True)
            self.options += ["-b", str(folder), "-f0", *(["-s", str(log_file)] if log_file else [])]
        self.port = port
        self.process = None

    @property
    def url(self):
        return f"beanstalkd://{self.host}:{self.port}"

    def start(self):
        """Start it and wait until it answers; another port if somebody took this one."""
        chosen, deadline = self.port, time.monotonic() + PATIENCE
        while True:
            self.port = chosen or free_port()
            command = [self.program, *self.options, "-p", str(self.port)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if self._answers(deadline):
                return self
            said = self._end()
            assert time.monotonic() < deadline, f"beanstalkd does not start: {said}"

    def _answers(self, deadline):
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection((self.host, self.port), timeout=1) as connection:
                    connection.sendall(b"list-tube-used\r\n")
                    if connection.recv(100).startswith(b"USING") and self.process.poll() is None:
                        return True
            except OSError:
                time.sleep(0.005)
        return False

    def _end(self):
        process, self.process = self.process, None
        if process is None:
            return ""
        process.kill()
        _, said = process.communicate()
        return said

    def kill(self):
        """End it as a crash would."""
        self._end()

    def signal(self, number):
        self.process.send_signal(number)

    @contextmanager
    def no_more_memory(self):
        """Let it have what it has, and not a page more."""
        import psutil  # not there yet when this file is run to install servers

        pid = self.process.pid
        resource.prlimit(pid, resource.RLIMIT_AS, (psutil.Process(pid).memory_info().vms, -1))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_AS, (-1, -1))

    @contextmanager
    def no_more_disk(self):
        """Let it write to the file of its log that is open, and open no other."""
        away = self.folder.with_name("away")
        self.folder.rename(away)
        try:
            yield
        finally:
            away.rename(self.folder)

    def hang(self):
        """Let it answer nothing more, until it is told to `go_on`."""
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self._end()


class Prometheus:
    """A Prometheus of one's own, in a folder; `config` is what its configuration file says."""

    def __init__(self, folder, config):
        self.program = needed("prometheus")
        folder.mkdir(exist_ok=True)
        self.folder = folder
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.process = None

    def start(self):
        """Start it and wait until it is ready; another port if somebody took this one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.address = f"127.0.0.1:{free_port()}"
            command = [
                self.program, f"--web.listen-address={self.address}", "--log.level=warn",
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
            ]  # fmt: skip
            with (self.folder / "log").open("w") as log:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
            while self.process.poll() is None and time.monotonic() < deadline:
                if self._is_ready():
                    return self
                time.sleep(0.02)
            self.kill()
            said = (self.folder / "log").read_text()
            assert time.monotonic() < deadline, f"prometheus does not start: {said}"

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready"):
                return True
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return False

    def query(self, expression, **fields):
        """Return what it answers: a list of series, each with its labels and values."""
        verb = "query_range" if "start" in fields else "query"
        return self.get(verb, query=expression, **fields)["result"]

    def get(self, verb, **fields):
        url = f"http://{self.address}/api/v1/{verb}?{urllib.parse.urlencode(fields)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{fields}: {json.load(error)['error']}") from None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install():
    """Install what is missing; say what cannot be had, and leave the verdict to the tests."""
    for name in (*PACKAGES, *UNPACKED):
        try:
            program(name)
        except (CannotHave, subprocess.SubprocessError) as reason:
            print(reason)


if __name__ == "__main__":
    install()
    sys.exit(0)
