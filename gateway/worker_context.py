"""The position of this process among the workers of one gateway: processes that listen on one port.

`tritonic.workers` starts them and gives them a folder of their own. For work that only one worker may do, the workers
compete for a lock file in the folder, which the kernel releases however a process ends.
"""

import fcntl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_EMPTY_METRICS_FILE = bytes(1 << 16)
"""Content of a new metrics file: zeros, as a reader fails on an empty file."""
_METRIC_KINDS = ("counter", "histogram", "gauge_livemax", "gauge_livesum")
"""Kinds of files that prometheus_client creates for each process, for the metrics of
`gateway.observability.telemetry`."""


@dataclass(frozen=True, slots=True, eq=False)
class WorkerContext:
    """Worker number `worker_index` (from 0) of `num_workers`. Without a folder it is the only worker."""

    folder: Path | None = None
    worker_index: int = 0
    num_workers: int = 1
    _locks: dict[str, IO[str]] = field(default_factory=dict)

    def try_lead(self, duty: str) -> bool:
        """Try to become the worker that does `duty`. Return True if it is; it stays so until it ends."""
        if self.folder is None or duty in self._locks:
            return True
        if self.is_ending:
            return False  # the worker that did it did so until the shutdown
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
        """True if the whole gateway shuts down, not only this worker."""
        return self.folder is None or (self.folder / "ending").exists()

    def announce_shutdown(self) -> None:
        """Tell all workers that the gateway shuts down."""
        if self.folder is not None:
            with suppress(OSError):  # without the folder all workers have ended
                (self.folder / "ending").touch()


def prepare_metrics_files(folder: Path, number: int) -> None:
    """Prepare the metrics files of worker `number`: counters continue those of its predecessor, gauges start at 0."""
    for kind in _METRIC_KINDS:
        path = folder / f"{kind}_{number}.db"
        if kind.startswith("gauge") or not path.exists():
            # Replaced atomically, as other workers may be reading it.
            new = path.with_suffix(".new")
            new.write_bytes(_EMPTY_METRICS_FILE)
            new.replace(path)
