"""The memory that this process may still allocate, within the machine's and its control groups' limits."""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def available_memory(root: Path = _ROOT) -> int:
    """Return the bytes that the machine and every control group above this process leave, whichever is least.

    Caches that the kernel would give up count as available. `root` is the root of the file system, for tests.
    """
    return max(0, min([_machine_available(root), *_cgroups_available(root)]))


def _machine_available(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroups_available(root: Path) -> Iterator[int]:
    """Yield the available bytes of each control group, version 1 or 2, from this process's own up to the root."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        top = root / mount
        # In a container, the path may be the host's; then only the top of the hierarchy exists here.
        group = top / path.lstrip("/")
        for folder in [group, *group.parents]:
            left = _remaining(folder, limit, usage, cache)
            if left is not None:
                yield left
            if folder == top:
                break


def _remaining(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Return the bytes that one group leaves; None if it has no limit or cannot be read."""
    try:
        most = int((folder / limit).read_text())  # the word `max` is no limit
        used = int((folder / usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return most - used + int(statistics.get(cache, 0))
    except (OSError, ValueError):
        return None
