"""Data-parallel training: several processes train one network, each on its shard of every batch.

On a few cores this is faster than one process with several threads. Processes wait for each other once a step, threads
in every operation, and such waits are long on a machine that does other work.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process's rank among `world_size` processes. The leader, rank 0, writes files and logs."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_leader(self) -> bool:
        """True if this process has rank 0."""
        return self.rank == 0

    def shard(self, batch: Any) -> Any:
        """Return this process's rows of a batch, whose length must be a multiple of `world_size`."""
        return batch[self.rank :: self.world_size]

    def average_gradients(self, network: Any) -> None:
        """Replace the gradients in every process with their mean over all processes."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.world_size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.world_size > 1:
            torch.distributed.barrier()


SINGLE_PROCESS = ProcessGroup()


def run_in_processes(size: int, meeting: Path, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(group, *arguments)` in `size` processes, and wait for all of them.

    `meeting` is a file through which the processes find each other.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    if size == 1:
        work(SINGLE_PROCESS, *arguments)
        return
    meeting.unlink(missing_ok=True)
    torch.multiprocessing.spawn(_join, (size, meeting, work, arguments), nprocs=size)


def _join(number: int, size: int, meeting: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=size)
    try:
        work(ProcessGroup(number, size), *arguments)
    finally:
        torch.distributed.destroy_process_group()
