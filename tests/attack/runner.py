"""One attack on one gateway, measured; what is wrong with what it came to; and the table of all of them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.attack.cases.case import AttackCase, Target
from tests.attack.cost_meter import (
    MAX_FREEZE_SECONDS,
    MAX_OBSERVED_FREEZE_SECONDS,
    MAX_PEAK_MB,
    MAX_RETAINED_MB,
    Cost,
    CostMeter,
)
from tests.attack.gateways import GatewayPool
from tests.attack.honest_client import HonestClient, percentile
from tests.attack.raw_http import CONNECTION_CLOSED, TIMED_OUT

MAX_LATENCY_SECONDS = {"chat": 2.0, "slow chat": 3.0, "picture": 4.0, "document": 12.0}
"""Seconds within which all that an honest caller asks beside an attack is answered, but for one in a hundred. Generous:
the machine may be busy. Where a caller keeps to its share, it is a small part of this."""
_SETTLE_SECONDS = 0.2
"""Seconds for which is measured after an attack: what it has left to do belongs to it, too."""
_STATUS_NAMES = {CONNECTION_CLOSED: "closed", TIMED_OUT: "hangs"}


@dataclass(slots=True)
class AttackResult:
    """What an attack came to."""

    case: AttackCase
    workers: int
    target: Target
    cost: Cost
    seconds: float = 0.0
    honest_latencies: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Of the honest caller's requests, and what the attack itself found wrong."""

    def is_inconclusive(self) -> bool:
        """Whether all that is wrong is a hold little longer than it may be: on a busy machine, caches are cold."""
        return (
            len(self.problems()) == 1
            and self.cost.num_holds == 1
            and self.cost.freeze_seconds < 2.5 * MAX_FREEZE_SECONDS
        )

    def problems(self) -> list[str]:
        """What is wrong with it, in sentences."""
        said = list(self.failures[:5])
        if len(self.failures) > 5:
            said.append(f"and {len(self.failures) - 5} more failures")
        if unexpected := {status: n for status, n in self.target.statuses.items() if status not in self.case.statuses}:
            said.append(f"statuses {unexpected}: {self.target.refusals[:3]}")
        if self.cost.dead_pids:
            said.append(f"processes {self.cost.dead_pids} of the gateway ended")
        if self.cost.num_holds:
            said.append(f"the event loop was held for more than {MAX_FREEZE_SECONDS:g} s {self.cost.num_holds} times")
        if self.cost.freeze_seconds > (
            MAX_FREEZE_SECONDS if self.cost.num_holds is None else MAX_OBSERVED_FREEZE_SECONDS
        ):
            said.append(f"the event loop was held for {self.cost.freeze_seconds:.2f} s")
        if self.cost.peak_mb > MAX_PEAK_MB:
            said.append(f"{self.cost.peak_mb:.0f} MB were taken")
        if self.cost.retained_mb > MAX_RETAINED_MB:
            said.append(f"{self.cost.retained_mb:.0f} MB were kept")
        for what, seconds in self.honest_latencies.items():
            if (longest := percentile(seconds, 0.99)) > MAX_LATENCY_SECONDS[what]:
                said.append(f"an honest {what} took {longest:.2f} s")
        return said


def run_attack(gateways: GatewayPool, kind: AttackCase, workers: int) -> AttackResult:
    """Attack, and measure."""
    served = gateways.get(kind.setup, workers)
    target = Target(served)
    if kind.prepare:
        kind.prepare()
    failures: list[str] = []
    with CostMeter(served) as watch, HonestClient(served, kind.honest_requests) as neighbour:
        began = time.perf_counter()
        try:
            kind.attack(target)
        except (AssertionError, OSError) as error:
            failures.append(f"{type(error).__name__}: {error}"[:500])
        seconds = time.perf_counter() - began
        time.sleep(_SETTLE_SECONDS)
    return AttackResult(kind, workers, target, watch.cost, seconds, neighbour.seconds, failures + neighbour.failures)


def markdown_table(tried: Iterable[AttackResult]) -> str:
    """A table in Markdown, a line for each attack."""
    lines = [
        "| attack | workers | sent | answers | took | freeze | held > 0.1 s | memory | kept | neighbour p50 | p99 |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(_line, tried),
    ]
    return "\n".join(lines) + "\n"


def _line(tried: AttackResult) -> str:
    cost = tried.cost
    answers = ", ".join(
        f"{_STATUS_NAMES.get(status, status)} x {number}" for status, number in sorted(tried.target.statuses.items())
    )
    others = [
        " / ".join(f"{1000 * percentile(seconds, share):.0f}" for seconds in tried.honest_latencies.values()) + " ms"
        for share in (0.5, 0.99)
    ]
    if lost := len([said for said in tried.failures if said.startswith(tuple(tried.honest_latencies))]):
        others[1] += f", {lost} lost"
    ended = " (ended)" if cost.dead_pids else ""
    cells = [
        tried.case.name,
        str(tried.workers),
        f"{tried.target.sent_bytes / 2**20:.2f} MB"
        if tried.target.sent_bytes >= 10_000
        else f"{tried.target.sent_bytes} B",
        (answers or "-") + ended,
        f"{tried.seconds:.1f} s",
        f"{1000 * cost.freeze_seconds:.0f} ms",
        "-" if cost.num_holds is None else str(cost.num_holds),
        f"{cost.peak_mb:.0f} MB",
        f"{cost.retained_mb:.0f} MB",
        *others,
    ]
    return f"| {' | '.join(cells)} |"
