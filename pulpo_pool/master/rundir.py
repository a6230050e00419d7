"""RunDirectory: a pool's name made a place, and a lock that says whether the pool lives."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pulpo_pool.errors import AlreadyRunning, ConfigError

if TYPE_CHECKING:
    from pulpo_pool.errors import ExitCode
    from pulpo_pool.settings import Settings

LONGEST_SOCKET_PATH: Final = 103  # bytes; 107 on Linux (unix(7)), 103 on macOS


class BootError(msgspec.Struct, frozen=True):
    """Why a worker could not boot, and what the program exits with if none does."""

    code: int
    text: str


class RunDirectory:
    """`run/<name>` in the state directory, held by one living master at a time.

    The lock is an fcntl record lock: kill -9 frees it, and it is seen across namespaces. The
    identity outlives the master, so that a successor knows its predecessor's reservations.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.metrics = path / "metrics"
        self.stacks = path / "stacks"
        self.crashes = path / "crashes"
        self._boot_error = path / "boot-error.json"
        self.control = socket_path(path / "control.sock")
        self._lock = lock
        self._pid = path / "pid"
        self._pidfile: Path | None = None
        self.identity = self._lasting_identity()

    @classmethod
    def claim(cls, settings: Settings) -> RunDirectory:
        """Take the name; raise AlreadyRunning, with the owner's pid, if it is taken."""
        path = settings.run_dir.absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in ("stacks", "crashes"):
                (path / part).mkdir(mode=0o700, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"state-dir: {path} cannot be used: {error.strerror}; "
                "choose another with --state-dir"
            ) from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            owner = _read(path / "pid") or "unknown"
            raise AlreadyRunning(
                f"a pool named {settings.name!r} is running already (pid {owner}, {path}): "
                "stop it with `pulpo-pool drain`, or start this one with another --name"
            ) from error
        directory = cls(path, lock)
        directory._announce(settings)
        return directory

    def _announce(self, settings: Settings) -> None:
        text = f"{os.getpid()}\n"
        self._pid.write_text(text)
        self._boot_error.unlink(missing_ok=True)
        if settings.pidfile is None:
            return
        pidfile = Path(settings.pidfile)
        try:
            pidfile.write_text(text)
        except OSError as error:
            raise ConfigError(f"pidfile: {pidfile} cannot be written: {error.strerror}") from error
        self._pidfile = pidfile

    def _lasting_identity(self) -> str:
        path = self.path / "identity"
        identity = _read(path)
        if not identity:
            identity = secrets.token_hex(8)
            path.write_text(identity)
        return identity

    def leave_boot_error(self, code: ExitCode, text: str) -> None:
        """Note, in a worker, why it could not boot. The last one to fail is believed."""
        draft = self._boot_error.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            draft.write_bytes(msgspec.json.encode(BootError(code, text)))
            draft.replace(self._boot_error)

    def take_boot_error(self) -> BootError | None:
        """Return, once, why a worker could not boot."""
        try:
            content = self._boot_error.read_bytes()
            self._boot_error.unlink(missing_ok=True)
            return msgspec.json.decode(content, type=BootError)
        except (OSError, msgspec.MsgspecError):
            return None

    def release(self) -> None:
        """Give the name back."""
        for path in (self._pid, self._pidfile):
            if path is not None:
                with suppress(OSError):
                    path.unlink()
        os.close(self._lock)


def socket_path(path: Path) -> Path:
    """Return a path the kernel accepts for a socket: long ones are hashed into a short place."""
    path = path.absolute()
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return Path(tempfile.gettempdir()) / f"pulpo-pool-{os.getuid()}" / f"{digest}.sock"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
