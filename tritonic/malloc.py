"""Tuning of the C library's memory allocator."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3
"""glibc's number of the parameter M_MMAP_THRESHOLD (`man 3 mallopt`)."""
_THRESHOLD_BYTES = 1024 * 1024


def set_mmap_threshold() -> None:
    """Return freed allocations above 1 MiB to the system at once. Only glibc has this setting.

    By default glibc raises the threshold when a large allocation is freed, to 32 MiB at most, and then keeps such
    memory on its heap. A few large bodies could leave hundreds of megabytes there, pinned by small objects between.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
