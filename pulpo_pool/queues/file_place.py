"""Where a file queue lies: which paths are fit for it, and who may read what is made there."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pulpo_pool.errors import ConfigError, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

_NETWORK_FILESYSTEMS: Final = frozenset(
    {"9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "smb2", "smb3", "smbfs", "webdav", "fuse.ceph", "fuse.davfs2"}
    | {"fuse.gcsfuse", "fuse.glusterfs", "fuse.gvfsd-fuse", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs"}
)


def absolute(path: str) -> str:
    """Return the path that stays the same when the process changes its directory.

    Raises ConfigError for one that can never hold a queue.
    """
    if not path or "\0" in path:
        raise ConfigError(f"file queue {path!r}: expected the path of a file")
    place = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`
    if place.is_dir() or path.endswith("/"):
        raise ConfigError(
            f"file queue {place}: is a directory; name a file in it, such as queue.db"
        )
    parent = place.parent
    if parent.exists() and not parent.is_dir():
        raise ConfigError(f"file queue {place}: {parent} is a file, not a directory")
    if not parent.exists() and not parent.parent.is_dir():
        raise ConfigError(
            f"file queue {place}: the directory {parent} does not exist; create it, or correct "
            "the path"
        )
    return str(place)


def refuse_network(path: str, mounts: Iterable[tuple[str, str]]) -> None:
    """Raise ConfigError if the file would lie on a network filesystem.

    `mounts` are pairs of mount point and filesystem type. SQLite's write-ahead log is memory
    shared by processes, so two hosts that write to one file destroy it.
    """
    real = os.path.realpath(path)
    point, kind = "", ""
    for mount, filesystem in mounts:
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(point):
            point, kind = mount, filesystem.lower()
    if kind in _NETWORK_FILESYSTEMS:
        raise ConfigError(
            f"file queue {path}: {point} is a network filesystem ({kind}), on which SQLite loses "
            "data; put the file on a local disk, or use beanstalkd for several hosts"
        )


def mounted() -> list[tuple[str, str]]:
    """Return the mount points of this machine with their filesystem types."""
    import psutil  # takes 10 ms, and only an opening needs it

    return [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


def create(path: str) -> None:
    """Make an empty database file that only its owner can read, unless there is one.

    The last directory of the path is made too. The file is linked into place rather than created
    there: closing a descriptor of the database would drop the locks that SQLite holds on it for
    another adapter in this process.
    """
    place = Path(path)
    if place.exists():
        return
    with suppress(FileExistsError):
        place.parent.mkdir(mode=0o700)
    draft = place.with_name(f"{place.name}.new-{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        with suppress(FileExistsError):
            place.hardlink_to(draft)
    finally:
        draft.unlink()


def sync_directory(path: str) -> None:
    """Make the name of a new file survive a power cut."""
    descriptor = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entrust(path: str, database: str) -> None:
    """Give a new file beside the database the owner and permissions of the database.

    Otherwise a look as root would leave files that the pool's own user cannot open.
    """
    like, made = os.stat(database), os.stat(path)  # noqa: PTH116 - the store speaks in plain paths
    mode = stat.S_IMODE(like.st_mode) & 0o666
    if stat.S_ISDIR(made.st_mode):
        mode |= (mode & 0o444) >> 2
    with suppress(PermissionError):  # another user made it; whether it is open to us will be seen
        if stat.S_IMODE(made.st_mode) != mode:
            os.chmod(path, mode)  # noqa: PTH101
        if os.geteuid() == 0:
            os.chown(path, like.st_uid, like.st_gid)


def identity(path: str) -> tuple[int, int] | None:
    """Return which file this path leads to now; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for at every publish
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise QueueUnavailable(f"file queue {path}: {error.strerror}") from error
    return found.st_dev, found.st_ino
