"""Room on the disk, and what to say when there is none."""

import errno
import shutil
from pathlib import Path

from tritonic.errors import TritonicError

MEGABYTE = 1024 * 1024
RUN_BYTES = 64 * MEGABYTE
BUILD_BYTES = 3 * 1024 * MEGABYTE


class DiskError(TritonicError):
    """The disk is full; the message says which and what to do."""


def free_bytes(path: Path) -> int:
    """Bytes free for us on the disk that holds `path`, or would hold it."""
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
    """Whether the error says that a disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
