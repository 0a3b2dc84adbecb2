"""The processes of structures that were compiled: those that answers have, and those that are kept for later ones."""

import socket
from collections import OrderedDict

from backends.llm.structured_outputs.compiled_grammar import GrammarProcess
from backends.llm.structured_outputs.limits import Limits


class ProcessCache:
    """Processes by structure, the one used last at the end. Bounds their number and their memory.

    No method may be called from two threads at once.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._processes: OrderedDict[bytes, GrammarProcess] = OrderedDict()

    def __len__(self) -> int:
        return len(self._processes)

    def get(self, key: bytes) -> GrammarProcess | None:
        """Return the process of a structure, which is now the one used last."""
        process = self._processes.get(key)
        if process:
            self._processes.move_to_end(key)
        return process

    def add(self, key: bytes, process: GrammarProcess) -> None:
        """Keep a process."""
        self._processes[key] = process

    def remove(self, channel: socket.socket) -> None:
        """Forget the process with this channel: it has ended."""
        for key in [key for key, process in self._processes.items() if process.channel is channel]:
            del self._processes[key]

    def evict(self, more: int) -> list[GrammarProcess]:
        """Forget what is too much where `more` processes are to be started, and return it.

        What no answer has goes first. Where the others are too large together, the largest is ended.
        """
        limits = self._limits
        sizes = {key: one.nbytes() if self.may_exceed_memory() else 0 for key, one in self._processes.items()}
        idle = [key for key, process in self._processes.items() if not process.num_users]
        gone = []
        total = sum(sizes.values())
        while idle and (
            total > limits.total_memory_bytes or len(idle) > limits.max_idle or len(self) + more > limits.max_processes
        ):
            total -= sizes[idle[0]]
            gone.append(self._processes.pop(idle.pop(0)))
        if total > limits.total_memory_bytes:
            largest = max(self._processes, key=lambda key: sizes[key])
            self._processes[largest].kill()
            gone.append(self._processes.pop(largest))
        return gone

    def may_exceed_memory(self) -> bool:
        """Whether there are so many that their memory matters."""
        return len(self) * self._limits.memory_bytes > self._limits.total_memory_bytes

    def has_users(self) -> bool:
        """Whether an answer has one of them, which may grow therefore."""
        return any(process.num_users for process in self._processes.values())

    def clear(self) -> list[GrammarProcess]:
        """Forget all, and return them."""
        gone = list(self._processes.values())
        self._processes.clear()
        return gone
