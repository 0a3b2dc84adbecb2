"""A training loop that logs its progress, saves its state, and resumes from it."""

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.common.process_group import SINGLE_PROCESS, ProcessGroup

LogLine = Callable[[str], None]
"""Writes one line of progress."""


@dataclass(frozen=True, slots=True)
class TimestampedLog:
    """A `LogLine` that prefixes each line with the seconds since `started`, a Unix time."""

    started: float

    def __call__(self, line: str) -> None:
        """Print the line and flush stdout."""
        sys.stdout.write(f"{time.time() - self.started:6.0f} s  {line}\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class StageConfig:
    """Length and learning rate of a stage, in steps, so that the load of the machine does not change the result.

    The learning rate rises for `warmup_steps`, stays for `constant_fraction` of all steps, and then falls linearly, to
    `final_fraction` of itself at least. Matrices whose names begin with `muon_prefix`, or with one of several, are
    updated by Muon, all other weights by AdamW.
    """

    name: str
    steps: int
    learning_rate: float
    warmup_steps: int = 100
    constant_fraction: float = 0.0
    final_fraction: float = 0.01
    weight_decay: float = 0.01
    uses_ema: bool = False
    muon_prefix: str | tuple[str, ...] | None = None
    log_steps: int = 100
    save_steps: int = 500

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        fall = min(1.0, (1 - step / self.steps) / (1 - self.constant_fraction))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * max(self.final_fraction, fall)


EMA_DECAY = 0.999
"""Decay of the exponential moving average of the weights, per step."""


def run_training_loop(
    stage: StageConfig,
    file: Path,
    network: Any,
    loss_of: Callable[[int], dict[str, Any]],
    log: LogLine,
    on_save: Callable[[int, Any], None] | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Any:
    """Train the module `network`; return it, or its moving average if the stage uses one.

    `loss_of(step)` returns named losses, whose sum is minimised. It may use torch's global random generator, which is
    seeded by the step: a resumed training draws the same numbers as an uninterrupted one. `file` holds the state, from
    which a finished stage is loaded. `on_save(step, network)` is called when it is written. All processes of a group
    call this in the same way, each with the loss of its shard of the batch.
    """
    average = copy.deepcopy(network).requires_grad_(False) if stage.uses_ema else network
    optimizers = _make_optimizers(stage, network)
    first = 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        first = state["step"]
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        log(f"{stage.name}: {first} of {stage.steps} steps are done already")
    started, sums = time.monotonic(), dict[str, float]()
    for step in range(first, stage.steps):
        torch.manual_seed(sum(stage.name.encode()) * 1_000_003 + step)
        for optimizer in optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = stage.learning_rate_at(step)
            optimizer.zero_grad()
        losses = loss_of(step)
        sum(losses.values()).backward()
        group.average_gradients(network)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if stage.uses_ema:
            decay = min(EMA_DECAY, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.parameters()), [p.data for p in network.parameters()], 1 - decay)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item() / stage.log_steps
        done = step + 1
        if group.is_leader and done % stage.log_steps == 0:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in sums.items())
            pace = (time.monotonic() - started) / (done - first)
            log(f"{stage.name}: step {done} of {stage.steps}, {figures}, {pace:.2f} s a step")
            sums.clear()
        if group.is_leader and (done % stage.save_steps == 0 or done == stage.steps):
            _write(file, done, network, average, optimizers)
            if on_save:
                on_save(done, average)
    return average


def _make_optimizers(stage: StageConfig, network: Any) -> list[Any]:
    matrices: list[Any] = []
    others: list[Any] = []
    for name, parameter in network.named_parameters():
        by_muon = stage.muon_prefix is not None and name.startswith(stage.muon_prefix) and parameter.ndim == 2
        (matrices if by_muon else others).append(parameter)
    rate, decay = stage.learning_rate, stage.weight_decay
    optimizers: list[Any] = [torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=decay, fused=True)]
    if matrices:
        # Updates are as large as those of AdamW, so one learning rate serves both.
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        optimizers.append(muon)
    return optimizers


def _write(file: Path, step: int, network: Any, average: Any, optimizers: list[Any]) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    fresh = file.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(file)
