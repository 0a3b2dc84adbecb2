"""How many files and connections this process may have open."""

import os
import resource

_RESERVED = 256
"""Descriptors that are no clients' connections: Triton, databases, files, what is fetched, processes that read."""


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, for this process and its children. Returns what holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # the kernel's own bound may have been lowered below it
            pass
    return soft


def max_connections(descriptors: int, wanted: int) -> int:
    """Return how many of the `wanted` connections fit beside what else needs descriptors: at least one."""
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, descriptors - min(_RESERVED, descriptors // 2)))


def is_exhausted() -> bool:
    """Whether no descriptor is left. The event loop closes connections then without a word."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False
