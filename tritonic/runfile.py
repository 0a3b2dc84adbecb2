"""The state of the `up` in a folder: a lock file that only one `up` can hold, and up.json with process and addresses.

A process id can be reused by another program, so the file also records the process's start time and the boot id.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tritonic.errors import TritonicError

TAG = "TRITONIC_RUN"
"""Environment variable that marks all processes that one `up` starts."""


class AlreadyRunningError(TritonicError):
    """Another `up` runs in this folder."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process id with its start time, in clock ticks since boot, and boot id. A later process with the id differs."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """Return the identity of a running process; None when no process with that id runs."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
        except OSError:
            return None
        if stat[0] in (b"Z", b"X"):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(pid, int(stat[19]), boot)

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """Return the identity of this process."""
        found = cls.of(os.getpid())
        assert found is not None  # This process is running.
        return found

    def is_alive(self) -> bool:
        """Return whether this process, and not a later one with its id, still runs."""
        return ProcessIdentity.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One `up`. All processes that it starts have `tag` in their environment. Addresses are "" until they are ready."""

    supervisor: ProcessIdentity
    tag: str
    repository: str
    gateway_url: str = ""
    triton_grpc: str = ""
    triton_secret: str = field(default="", repr=False)
    """The secret for the protocols that this Triton restricts."""


def read(folder: Path) -> RunRecord | None:
    """Read the folder's up.json, whether or not that `up` still runs. Return None without a valid file."""
    try:
        fields = json.loads((folder / "up.json").read_text())
        fields["supervisor"] = ProcessIdentity(**fields["supervisor"])
        return RunRecord(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_running(folder: Path) -> RunRecord | None:
    """Return the `up` that runs in the folder now, or None."""
    found = read(folder)
    return found if found is not None and found.supervisor.is_alive() else None


def tagged_pids(tag: str) -> list[int]:
    """Return the ids of all running processes with this tag in their environment."""
    mark = f"{TAG}={tag}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in entry.joinpath("environ").read_bytes().split(b"\0") and ProcessIdentity.of(int(entry.name)):
                    found.append(int(entry.name))
    return found


def open_private(path: str | Path, flags: int) -> int:
    """Open a file with mode 0600. An opener for `open`."""
    return os.open(path, flags, 0o600)


def write(folder: Path, record: RunRecord) -> None:
    """Replace up.json atomically, readable by its owner alone. Raises OSError."""
    temporary = folder / "up.json.new"
    temporary.unlink(missing_ok=True)  # an existing file would keep its mode
    with open(temporary, "x", opener=open_private) as file:
        file.write(json.dumps(asdict(record), indent=1) + "\n")
    temporary.replace(folder / "up.json")


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs, and remove up.json at the end.

    A new folder is readable by its owner alone, for it will hold logs, tasks, files and secrets.

    The kernel releases the lock when the process ends, in whatever way. Raises AlreadyRunningError and OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = find_running(folder)
            who = f" (process {other.supervisor.pid}, {other.gateway_url or 'starting'})" if other else ""
            raise AlreadyRunningError(
                f"Tritonic already runs in this folder{who}. Stop it with `tritonic down`, or start this one elsewhere."
            ) from None
        try:
            yield
        finally:
            (folder / "up.json").unlink(missing_ok=True)
    finally:
        os.close(descriptor)
