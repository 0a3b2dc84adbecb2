"""The place of this process among the workers of one gateway: several processes that listen on one port.

`tritonic.workers` starts them and gives them a folder that is theirs alone. What only one of them may do is done by
whoever holds a lock in it, which the kernel frees however a process ends.
"""

import fcntl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_EMPTY_METRICS_FILE = bytes(1 << 16)
"""A file of the metrics in which nothing stands yet: a reader must not find one of no bytes."""
_METRIC_KINDS = ("counter", "histogram", "gauge_livemax", "gauge_livesum")
"""The files that prometheus_client keeps for each process, by what `gateway.observability.telemetry` measures."""


@dataclass(frozen=True, slots=True, eq=False)
class WorkerContext:
    """One worker of `size`, the one with the `number`, from 0 on. Without a folder it is the only one."""

    folder: Path | None = None
    worker_index: int = 0
    num_workers: int = 1
    _locks: dict[str, IO[str]] = field(default_factory=dict)

    def try_lead(self, duty: str) -> bool:
        """Whether this worker does what only one may; once it does, for as long as it lives."""
        if self.folder is None or duty in self._locks:
            return True
        if self.is_ending:
            return False  # whoever did it has done it to the end
        lock = (self.folder / f"{duty}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._locks[duty] = lock
        return True

    @property
    def is_ending(self) -> bool:
        """Whether the gateway ends, and not this worker alone."""
        return self.folder is None or (self.folder / "ending").exists()

    def announce_shutdown(self) -> None:
        """Let all workers know that the gateway ends."""
        if self.folder is not None:
            with suppress(OSError):  # where the folder is gone, everything has ended
                (self.folder / "ending").touch()


def prepare_metrics_files(folder: Path, number: int) -> None:
    """Make what is measured by the worker with this number: its totals go on, and nothing is in its hands."""
    for kind in _METRIC_KINDS:
        path = folder / f"{kind}_{number}.db"
        if kind.startswith("gauge") or not path.exists():
            # Changed in one step, as other workers may be reading it.
            new = path.with_suffix(".new")
            new.write_bytes(_EMPTY_METRICS_FILE)
            new.replace(path)
