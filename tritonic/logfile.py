"""The log file of a child process: appended to, rotated, and read from the start of the current run."""

import contextlib
import os
from pathlib import Path
from typing import IO

from tritonic.runfile import open_private

MAX_LOG_BYTES = 20 * 1024 * 1024


class LogFile:
    """A log file that a child process writes through an inherited file descriptor.

    The file and its rotated copy take at most twice MAX_LOG_BYTES, plus what is written between two checks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run_start = 0

    def open(self) -> IO[bytes]:
        """Open the log for a new run. A large one is renamed to `NAME.1` first. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > MAX_LOG_BYTES:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        file = open(self.path, "ab", opener=open_private)  # noqa: SIM115
        with contextlib.suppress(OSError):
            os.fchmod(file.fileno(), 0o600)  # models may log the contents of requests
        self._run_start = file.tell()
        return file

    def rotate_if_large(self) -> None:
        """Copy a large log to `NAME.1` and truncate it, while the child goes on writing to it.

        The child holds the open file, so a rename would not help. It writes in append mode, so its next line goes to
        the start of the truncated file. Lines written between the end of the copy and the truncation are lost: usually
        microseconds, longer if this thread is not scheduled just then. When the disk has no room for the copy, the log
        is truncated all the same: a full disk is worse.
        """
        with contextlib.suppress(OSError), self.path.open("rb+") as file:
            if os.fstat(file.fileno()).st_size <= MAX_LOG_BYTES:
                return
            aside = self.path.with_name(f"{self.path.name}.1")
            try:
                aside.unlink(missing_ok=True)
                with open(aside, "wb", opener=open_private) as copy:
                    while os.sendfile(copy.fileno(), file.fileno(), None, MAX_LOG_BYTES):
                        pass
                    # At once: lines written since the last read are lost.
                    file.truncate(0)
            except OSError:
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
                file.truncate(0)
            self._run_start = 0

    def lines(self, max_bytes: int = 200_000) -> list[str]:
        """Return the lines of the current run, from at most its last `max_bytes`; none if the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(self._run_start, end - max_bytes))
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
