"""Runs attacks, measures and checks their results, and writes the table of all results."""

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
"""Limit of the 99th percentile of the latencies of the honest client during an attack, in seconds. It is generous,
because the machine may be busy: latencies are much lower if attackers get no more than their share."""
_SETTLE_SECONDS = 0.2
"""Seconds that the measurement continues after an attack, because the gateway may still work on its requests."""
_STATUS_NAMES = {CONNECTION_CLOSED: "closed", TIMED_OUT: "hangs"}


@dataclass(slots=True)
class AttackResult:
    """The result of an attack."""

    case: AttackCase
    workers: int
    target: Target
    cost: Cost
    seconds: float = 0.0
    honest_latencies: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Failed requests of the honest client, and failed assertions of the attack."""

    def is_inconclusive(self) -> bool:
        """Return True if the only problem is one slightly too long block, which cold caches cause on a busy machine."""
        return (
            len(self.problems()) == 1
            and self.cost.num_holds == 1
            and self.cost.freeze_seconds < 2.5 * MAX_FREEZE_SECONDS
        )

    def problems(self) -> list[str]:
        """Return the problems as sentences."""
        problems = list(self.failures[:5])
        if len(self.failures) > 5:
            problems.append(f"and {len(self.failures) - 5} more failures")
        if unexpected := {status: n for status, n in self.target.statuses.items() if status not in self.case.statuses}:
            problems.append(f"statuses {unexpected}: {self.target.refusals[:3]}")
        if self.cost.dead_pids:
            problems.append(f"processes {self.cost.dead_pids} of the gateway ended")
        if self.cost.num_holds:
            problems.append(
                f"the event loop was held for more than {MAX_FREEZE_SECONDS:g} s {self.cost.num_holds} times"
            )
        if self.cost.freeze_seconds > (
            MAX_FREEZE_SECONDS if self.cost.num_holds is None else MAX_OBSERVED_FREEZE_SECONDS
        ):
            problems.append(f"the event loop was held for {self.cost.freeze_seconds:.2f} s")
        if self.cost.peak_mb > MAX_PEAK_MB:
            problems.append(f"{self.cost.peak_mb:.0f} MB were taken")
        if self.cost.retained_mb > MAX_RETAINED_MB:
            problems.append(f"{self.cost.retained_mb:.0f} MB were kept")
        for name, latencies in self.honest_latencies.items():
            if (p99 := percentile(latencies, 0.99)) > MAX_LATENCY_SECONDS[name]:
                problems.append(f"an honest {name} took {p99:.2f} s")
        return problems


def run_attack(gateways: GatewayPool, case: AttackCase, workers: int) -> AttackResult:
    """Run one attack, measure its cost, and return its result."""
    served = gateways.get(case.setup, workers)
    target = Target(served)
    if case.prepare:
        case.prepare()
    failures: list[str] = []
    with CostMeter(served) as meter, HonestClient(served, case.honest_requests) as honest:
        began = time.perf_counter()
        try:
            case.attack(target)
        except (AssertionError, OSError) as error:
            failures.append(f"{type(error).__name__}: {error}"[:500])
        seconds = time.perf_counter() - began
        time.sleep(_SETTLE_SECONDS)
    return AttackResult(case, workers, target, meter.cost, seconds, honest.seconds, failures + honest.failures)


def markdown_table(results: Iterable[AttackResult]) -> str:
    """Return a table in Markdown with a line for each attack."""
    lines = [
        "| attack | workers | sent | responses | time | freeze | blocks > 0.1 s | peak | retained | honest p50 | p99 |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(_line, results),
    ]
    return "\n".join(lines) + "\n"


def _line(result: AttackResult) -> str:
    cost = result.cost
    responses = ", ".join(
        f"{_STATUS_NAMES.get(status, status)} x {number}" for status, number in sorted(result.target.statuses.items())
    )
    latencies = [
        " / ".join(f"{1000 * percentile(seconds, share):.0f}" for seconds in result.honest_latencies.values()) + " ms"
        for share in (0.5, 0.99)
    ]
    if lost := len([failure for failure in result.failures if failure.startswith(tuple(result.honest_latencies))]):
        latencies[1] += f", {lost} lost"
    ended = " (ended)" if cost.dead_pids else ""
    cells = [
        result.case.name,
        str(result.workers),
        f"{result.target.sent_bytes / 2**20:.2f} MB"
        if result.target.sent_bytes >= 10_000
        else f"{result.target.sent_bytes} B",
        (responses or "-") + ended,
        f"{result.seconds:.1f} s",
        f"{1000 * cost.freeze_seconds:.0f} ms",
        "-" if cost.num_holds is None else str(cost.num_holds),
        f"{cost.peak_mb:.0f} MB",
        f"{cost.retained_mb:.0f} MB",
        *latencies,
    ]
    return f"| {' | '.join(cells)} |"
