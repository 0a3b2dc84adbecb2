"""A course of training steps that prints its progress, is kept on disk, and goes on where it was broken off."""

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.shapes.process_group import SINGLE_PROCESS, ProcessGroup

LogLine = Callable[[str], None]
"""Told one line of progress."""


@dataclass(frozen=True, slots=True)
class TimestampedLog:
    """A `Tell` that prints each line after the seconds since `started`, a time of day."""

    started: float

    def __call__(self, line: str) -> None:
        """Print the line at once."""
        sys.stdout.write(f"{time.time() - self.started:6.0f} s  {line}\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class StageConfig:
    """How long a stage trains and how fast: by steps, so that what else the machine does changes nothing.

    The rate rises for `warm` steps, stays for the part `held` of the course, and falls to `last` of itself.
    """

    name: str
    steps: int
    learning_rate: float
    warmup_steps: int = 100
    constant_fraction: float = 0.0
    final_fraction: float = 0.01
    weight_decay: float = 0.01
    uses_ema: bool = False
    log_steps: int = 100
    save_steps: int = 500

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        fall = min(1.0, (1 - step / self.steps) / (1 - self.constant_fraction))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * max(self.final_fraction, fall)


EMA_DECAY = 0.999
"""Share of the running average that a step leaves as it is."""


def run_training_loop(
    course: StageConfig,
    file: Path,
    network: Any,
    loss_of: Callable[[int], dict[str, Any]],
    tell: LogLine,
    on_keep: Callable[[int, Any], None] | None = None,
    crew: ProcessGroup = SINGLE_PROCESS,
) -> Any:
    """Train `network` (a module) for the course and give it, or its running average where the course wants that.

    `loss_of(step)` gives named losses, of which the sum is trained. It may draw from torch's global generator, which
    is seeded by the step: a course that was broken off and resumed draws what an unbroken one would.
    `file` holds the state; a finished course is loaded from it. `on_keep(step, network)` is called when it is written.
    A crew's members call this alike; each loss is of its part of the batch.
    """
    average = copy.deepcopy(network).requires_grad_(False) if course.uses_ema else network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=course.learning_rate, betas=(0.9, 0.99), weight_decay=course.weight_decay, fused=True
    )
    first = 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        first = state["step"]
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        tell(f"{course.name}: {first} of {course.steps} steps were done before")
    started, sums = time.monotonic(), dict[str, float]()
    for step in range(first, course.steps):
        torch.manual_seed(sum(course.name.encode()) * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = course.learning_rate_at(step)
        losses = loss_of(step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        crew.average_gradients(network)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if course.uses_ema:
            kept = min(EMA_DECAY, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.parameters()), [p.data for p in network.parameters()], 1 - kept)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item() / course.log_steps
        done = step + 1
        if crew.is_leader and done % course.log_steps == 0:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in sums.items())
            pace = (time.monotonic() - started) / (done - first)
            tell(f"{course.name}: step {done} of {course.steps}, {figures}, {pace:.2f} s a step")
            sums.clear()
        if crew.is_leader and (done % course.save_steps == 0 or done == course.steps):
            _write(file, done, network, average, optimizer)
            if on_keep:
                on_keep(done, average)
    return average


def _write(file: Path, step: int, network: Any, average: Any, optimizer: Any) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    fresh = file.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(file)
