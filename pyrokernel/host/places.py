"""Where a host keeps its files, and which disks it refuses. Runs in the host process and in `doctor`.

Runtime directory (this machine's own disk, gone at reboot)::

    host.lock        held for life by the one host of the mesh on this machine
    host.sock        the host's exposed object
    ns.sock          the embedded name server, where no other is configured
    gateway          by which processes of this machine reach other machines
    handed.pem       key and certificate for connections that the gateway hands on to kernels
    joined.json      of a host in the mesh of another name server: which, and how it is reached itself
    kernels/         one record per living kernel, for adoption by the next host
    <instance>.sock  one per kernel

State directory::

    journals/<kernel>/<instance>/   journals, the newest few instances of each kernel
    deaths.jsonl                    how instances ended
    shelf/                          what was shipped, for kernels now and later
    shared/                         the shared state: its database, large values, backups, log
    host.log                        what a detached host has to say
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
from pathlib import Path

from pyrokernel.errors import SettingsError
from pyrokernel.settings import GATEWAY_SOCKET, JOINED, MAX_SOCKET_PATH_BYTES, PAPER, Settings, private_directory

log = logging.getLogger(__name__)

KEPT_INSTANCES = 5
"""How many journals of ended instances of a kernel stay."""

NETWORK_FILESYSTEMS = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "virtiofs", "webdav"}
    | {"fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)
"""Types on which locks, sockets or appends of several machines go wrong."""


@dataclasses.dataclass(frozen=True)
class Places:
    """The files of one mesh on this machine.

    Attributes:
        runtime, state: The two directories.
        root: Directory made for this mesh alone, removed with a private one; None for none.
    """

    runtime: Path
    state: Path
    root: Path | None = None

    @classmethod
    def of(cls, settings: Settings, *, private: bool = False) -> Places:
        """Say where the files of a mesh are; a private mesh has everything in its runtime directory."""
        runtime = settings.mesh_runtime_dir
        if private:
            return cls(runtime, runtime / "state", Path(settings.runtime_dir) if settings.runtime_dir else None)
        return cls(runtime, settings.mesh_state_dir)

    @property
    def lock(self) -> Path:
        """File that the host holds locked."""
        return self.runtime / "host.lock"

    @property
    def name_server_socket(self) -> Path:
        """Socket of the embedded name server."""
        return self.runtime / "ns.sock"

    @property
    def joined_file(self) -> Path:
        """File that says in whose mesh the host is, also after it was killed."""
        return self.runtime / JOINED

    @property
    def records(self) -> Path:
        """Directory of the kernels' records."""
        return self.runtime / "kernels"

    @property
    def deaths(self) -> Path:
        """File of the deaths."""
        return self.state / "deaths.jsonl"

    @property
    def shelf(self) -> Path:
        """Directory of what was shipped."""
        return self.state / "shelf"

    @property
    def shared(self) -> Path:
        """Directory of the shared state."""
        return self.state / "shared"

    @property
    def log(self) -> Path:
        """File that a detached host writes to."""
        return self.state / "host.log"

    def kernel_socket(self, instance: str) -> Path:
        """Socket of one instance: short, and never the same twice."""
        return self.runtime / f"{instance}.sock"

    @property
    def gateway(self) -> Path:
        """Socket by which processes of this machine reach others."""
        return self.runtime / GATEWAY_SOCKET

    @property
    def paper(self) -> Path:
        """File with what kernels show on connections that the gateway has handed on."""
        return self.runtime / PAPER

    def directory_of(self, role: str, name: str, instance: str) -> Path:
        """Directory in which a process keeps what it writes."""
        return {"state": self.shared, "gateway": self.state}.get(role) or self.journal(name, instance)

    def journal(self, kernel: str, instance: str) -> Path:
        """Directory of one instance's journal."""
        return self.state / "journals" / kernel / instance

    def journals(self, kernel: str) -> list[Path]:
        """Directories of the journals of a kernel that are still there, newest first."""
        try:
            found = [path for path in (self.state / "journals" / kernel).iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)

    def create(self) -> None:
        """Make the directories, or explain why they will not do.

        Raises:
            SettingsError: The path is too long for a socket, or the disk is another machine's.
            AccessRefusedError: A directory is not this user's alone.
        """
        longest = self.kernel_socket("0" * 16)
        if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
            raise SettingsError(
                f"sockets in {self.runtime} would have addresses above {MAX_SOCKET_PATH_BYTES} bytes; "
                "set runtime_dir to a shorter path"
            )
        refuse_network_filesystem(self.runtime, "runtime_dir")
        refuse_network_filesystem(self.state, "state_dir")
        private_directory(self.runtime)
        private_directory(self.state)
        private_directory(self.records)

    def note_joined(self, settings: Settings) -> None:
        """Keep in whose mesh this host is: front ends without a name server find it, and the next host goes there.

        Never raises for a disk that is full: the host runs all the same.
        """
        if not settings.ns:
            self.joined_file.unlink(missing_ok=True)
            return
        from pyrokernel.certs.files import write_private  # only where it is needed: hosts are to start soon

        said = {name: str(getattr(settings, name)) for name in ("ns", "listen", "advertise", "host")}
        try:
            write_private(self.joined_file, json.dumps(said).encode())
        except OSError as error:
            log.warning("cannot note in %s whose mesh this is, so commands here need --ns: %s", self.joined_file, error)

    def forget_old_journals(self, kernel: str, living: str = "") -> None:
        """Delete all but the newest journals of a kernel's ended instances."""
        ended = [path for path in self.journals(kernel) if path.name != living]
        for path in ended[KEPT_INSTANCES:]:
            shutil.rmtree(path, ignore_errors=True)

    def remove(self, *, private: bool) -> None:
        """Leave nothing behind: a private mesh goes altogether, any other keeps journals and log."""
        if private:
            shutil.rmtree(self.runtime, ignore_errors=True)
        else:
            shutil.rmtree(self.shelf, ignore_errors=True)  # code goes with the kernels that it was shipped to
            self.lock.unlink(missing_ok=True)
            self.joined_file.unlink(missing_ok=True)
            self.paper.unlink(missing_ok=True)
        for path in (self.records, self.runtime, self.root):
            _remove_if_empty(path)


def _remove_if_empty(path: Path | None) -> None:
    try:
        if path is not None:
            path.rmdir()
    except OSError:
        return  # gone, or somebody still has files there


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that `path` is on, "" where the system does not say.

    Args:
        path: Need not exist; its nearest existing parent counts.
        mounts: Text in the format of /proc/self/mounts, which is read when None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(errors="surrogateescape")
        except OSError:
            return ""
    target = path.expanduser().resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        # A later mount on the same point covers the earlier one, hence >=.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def refuse_network_filesystem(path: Path, setting: str, mounts: str | None = None) -> None:
    """Refuse a directory on another machine's disk.

    Raises:
        SettingsError: It is on a network file system; the message names the setting to change.
    """
    kind = filesystem_type(path, mounts)
    if kind in NETWORK_FILESYSTEMS:
        raise SettingsError(
            f"{path} is on a network file system ({kind}), where locks and appends are not safe; "
            f"set {setting} (PYROKERNEL_{setting.upper()}) to a directory on this machine's own disk"
        )
