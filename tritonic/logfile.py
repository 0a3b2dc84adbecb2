"""The log of a child: appended to, kept small, and read from where the present run began."""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from tritonic.runfile import private

LARGE = 20 * 1024 * 1024


class LogFile:
    """A file that a child writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = 0

    def open(self) -> IO[bytes]:
        """Open it for a new run. A large file is kept aside as `NAME.1` and a new one begun. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > LARGE:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        file = open(self.path, "ab", opener=private)  # noqa: SIM115
        with suppress(OSError):
            os.fchmod(file.fileno(), 0o600)  # models write what they like, requests among it
        self._begin = file.tell()
        return file

    def lines(self, max_bytes: int = 200_000) -> list[str]:
        """What the present run wrote, at most its last `max_bytes`; nothing where the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(self._begin, end - max_bytes))
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
