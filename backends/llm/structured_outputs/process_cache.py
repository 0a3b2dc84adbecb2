"""The grammar processes that have compiled their structures, in use or idle, and the order of their eviction."""

import socket
from collections import OrderedDict

from backends.llm.structured_outputs.compiled_grammar import GrammarProcess
from backends.llm.structured_outputs.limits import Limits


class ProcessCache:
    """Processes by the digest of their structure, the most recently used last. Limits their number and memory.

    No method may be called from two threads at once.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._processes: OrderedDict[bytes, GrammarProcess] = OrderedDict()

    def __len__(self) -> int:
        return len(self._processes)

    def get(self, key: bytes) -> GrammarProcess | None:
        """Return the process of a structure, and mark it as used now; None if there is none."""
        process = self._processes.get(key)
        if process:
            self._processes.move_to_end(key)
        return process

    def add(self, key: bytes, process: GrammarProcess) -> None:
        """Add a process."""
        self._processes[key] = process

    def remove(self, channel: socket.socket) -> None:
        """Remove the process with this channel, which has ended."""
        for key in [key for key, process in self._processes.items() if process.channel is channel]:
            del self._processes[key]

    def evict(self, num_starting: int) -> list[GrammarProcess]:
        """Remove the processes that exceed the limits, with `num_starting` more about to start, and return them.

        Idle processes go first. If those in use exceed the total memory, the largest is killed.
        """
        limits = self._limits
        sizes = {key: process.nbytes() if self.may_exceed_memory() else 0 for key, process in self._processes.items()}
        idle = [key for key, process in self._processes.items() if not process.num_users]
        evicted = []
        total = sum(sizes.values())
        while idle and (
            total > limits.total_memory_bytes
            or len(idle) > limits.max_idle
            or len(self) + num_starting > limits.max_processes
        ):
            total -= sizes[idle[0]]
            evicted.append(self._processes.pop(idle.pop(0)))
        if total > limits.total_memory_bytes:
            largest = max(self._processes, key=lambda key: sizes[key])
            self._processes[largest].kill()
            evicted.append(self._processes.pop(largest))
        return evicted

    def may_exceed_memory(self) -> bool:
        """Return whether there are enough processes to exceed the total memory."""
        return len(self) * self._limits.memory_bytes > self._limits.total_memory_bytes

    def has_users(self) -> bool:
        """Return whether any process is in use, and so may grow."""
        return any(process.num_users for process in self._processes.values())

    def clear(self) -> list[GrammarProcess]:
        """Remove all processes, and return them."""
        evicted = list(self._processes.values())
        self._processes.clear()
        return evicted
