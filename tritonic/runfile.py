"""What runs in a folder: a lock that one `up` alone can hold, and a file that says which process and which addresses.

A process id alone may belong to another program by now, so the file holds the process's start time and the boot too.
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
"""The environment variable by which everything that one `up` starts can be told from other processes."""


class AlreadyRunningError(TritonicError):
    """Another `up` runs in this folder."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The identity of a process that runs now; None when there is none of that id."""
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
        """The identity of this process."""
        found = cls.of(os.getpid())
        assert found is not None  # This process is running.
        return found

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One `up`. Every process that it starts has `tag` in its environment; the addresses are "" until they serve."""

    supervisor: ProcessIdentity
    tag: str
    repository: str
    gateway_url: str = ""
    triton_grpc: str = ""
    triton_secret: str = field(default="", repr=False)
    """What opens the protocols that this Triton restricts."""


def read(folder: Path) -> RunRecord | None:
    """What the folder's file says, whether or not it still runs; None when there is no file, or not one of ours."""
    try:
        fields = json.loads((folder / "up.json").read_text())
        fields["supervisor"] = ProcessIdentity(**fields["supervisor"])
        return RunRecord(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_running(folder: Path) -> RunRecord | None:
    """The `up` that runs in the folder now; None when there is none."""
    found = read(folder)
    return found if found is not None and found.supervisor.is_alive() else None


def tagged_pids(tag: str) -> list[int]:
    """Process ids of everything that was started under the tag and still runs."""
    mark = f"{TAG}={tag}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in entry.joinpath("environ").read_bytes().split(b"\0") and ProcessIdentity.of(int(entry.name)):
                    found.append(int(entry.name))
    return found


def open_private(path: str | Path, flags: int) -> int:
    """Open a file that nobody but its owner can read: an opener for `open`."""
    return os.open(path, flags, 0o600)


def write(folder: Path, what: RunRecord) -> None:
    """Replace the file in one step, for its owner's eyes alone. Raises OSError."""
    temporary = folder / "up.json.new"
    temporary.unlink(missing_ok=True)  # what is there already would keep its mode
    with open(temporary, "x", opener=open_private) as file:
        file.write(json.dumps(asdict(what), indent=1) + "\n")
    temporary.replace(folder / "up.json")


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs; the file is removed at the end.

    A folder that is made is its owner's alone: what lies in it are logs, tasks, files and secrets.

    The lock goes with the process that holds it, however it ends. Raises AlreadyRunningError and OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        os.close(lock)
