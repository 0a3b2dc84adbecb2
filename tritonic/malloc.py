"""How the C library keeps memory that was given back to it."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3
"""glibc's number for it, `man 3 mallopt`."""
_THRESHOLD_BYTES = 1024 * 1024


def set_mmap_threshold() -> None:
    """Have what is larger than 1 MiB go back to the system as soon as it is freed, where the C library is glibc.

    By itself it learns from the first large piece that is freed to keep such ones, up to 32 MiB each: some large bodies
    would leave hundreds of megabytes behind, between which something small lives.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
