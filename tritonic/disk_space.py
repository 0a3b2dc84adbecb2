"""Checks for free disk space, and the error for a full disk."""

import errno
import shutil
from pathlib import Path

from tritonic.errors import TritonicError

MEGABYTE = 1024 * 1024
RUN_BYTES = 64 * MEGABYTE
"""Free space that `up` needs for logs and state."""
BUILD_BYTES = 3 * 1024 * MEGABYTE
"""Free space that the build of a default model needs."""


class DiskError(TritonicError):
    """The disk is full; the message names it and says what to do."""


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write on the disk that holds `path`, or would hold it."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def check_free_space(path: Path, needed: int, purpose: str) -> None:
    """Raise DiskError when fewer than `needed` bytes are free for `path`."""
    free = free_bytes(path)
    if free < needed:
        raise DiskError(
            f"The disk that holds {path} has {free // MEGABYTE} MB left, and {purpose} needs about "
            f"{needed // MEGABYTE} MB. Free some, or work in a folder on another disk."
        )


def is_full(error: OSError) -> bool:
    """Return whether the error means a full disk or an exhausted quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
