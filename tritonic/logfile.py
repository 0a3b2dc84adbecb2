"""The log of a child: appended to, kept small, and read from where the present run began."""

import contextlib
import os
from pathlib import Path
from typing import IO

from tritonic.runfile import open_private

MAX_LOG_BYTES = 20 * 1024 * 1024


class LogFile:
    """A file that a child writes to, through a descriptor that it has inherited and keeps.

    It and what was kept aside of it take no more than twice `LARGE`, and what is written between two looks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run_start = 0

    def open(self) -> IO[bytes]:
        """Open it for a new run. A large file is kept aside as `NAME.1` and a new one begun. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > MAX_LOG_BYTES:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        file = open(self.path, "ab", opener=open_private)  # noqa: SIM115
        with contextlib.suppress(OSError):
            os.fchmod(file.fileno(), 0o600)  # models write what they like, requests among it
        self._run_start = file.tell()
        return file

    def rotate_if_large(self) -> None:
        """Keep a large file aside as `NAME.1` and empty it, while the child writes to it.

        The child has the file itself, not its name. So it is copied and cut; as it was opened for appending, the next
        line begins it anew. Lines that come between the end of the copy and the cut are lost: microseconds, unless this
        thread has to wait for a processor just then. Where there is no room for the copy, the file is cut all the same:
        a full disk hurts more.
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
                    # At once: what is written between the last look and this is lost.
                    file.truncate(0)
            except OSError:
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
                file.truncate(0)
            self._run_start = 0

    def lines(self, max_bytes: int = 200_000) -> list[str]:
        """What the present run wrote, at most its last `max_bytes`; nothing where the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(self._run_start, end - max_bytes))
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
