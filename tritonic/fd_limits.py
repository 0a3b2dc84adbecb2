"""Limits on the open file descriptors of this process, and so on its connections."""

import os
import resource

_RESERVED = 256
"""Descriptors kept free of client connections: for Triton, databases, files, fetched media and reader processes."""


def raise_limit() -> int:
    """Raise the soft limit of file descriptors to the hard one, also for child processes. Return the soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # the kernel's own limit may be lower than the hard one
            pass
    return soft


def max_connections(descriptors: int, wanted: int) -> int:
    """Return how many of the `wanted` connections fit into `descriptors` beside the reserved ones: at least one."""
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, descriptors - min(_RESERVED, descriptors // 2)))


def is_exhausted() -> bool:
    """Return whether no file descriptor is left. The event loop then closes new connections without any error."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False
