"""One attack on one gateway, measured; what is wrong with what it came to; and the table of all of them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.attack.kinds.kind import Kind, Target
from tests.attack.measuring import FREEZE, FREEZE_SEEN, KEPT, PEAK, Cost, Watch
from tests.attack.neighbour import Neighbour, percentile
from tests.attack.serving import Gateways
from tests.attack.wire import GONE, HANGS

PATIENCE = {"chat": 2.0, "slow chat": 3.0, "picture": 4.0, "document": 12.0}
"""Seconds within which all that an honest caller asks beside an attack is answered, but for one in a hundred. Generous:
the machine may be busy. Where a caller keeps to its share, it is a small part of this."""
_AFTER = 0.2
"""Seconds for which is measured after an attack: what it has left to do belongs to it, too."""
_SAID = {GONE: "closed", HANGS: "hangs"}


@dataclass(slots=True)
class Tried:
    """What an attack came to."""

    kind: Kind
    workers: int
    target: Target
    cost: Cost
    seconds: float = 0.0
    neighbour: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Of the honest caller's requests, and what the attack itself found wrong."""

    def doubtful(self) -> bool:
        """Whether all that is wrong is a hold little longer than it may be: on a busy machine, caches are cold."""
        return len(self.wrong()) == 1 and self.cost.held == 1 and self.cost.freeze < 2.5 * FREEZE

    def wrong(self) -> list[str]:
        """What is wrong with it, in sentences."""
        said = list(self.failures[:5])
        if len(self.failures) > 5:
            said.append(f"and {len(self.failures) - 5} more failures")
        if unexpected := {status: n for status, n in self.target.statuses.items() if status not in self.kind.statuses}:
            said.append(f"statuses {unexpected}: {self.target.said[:3]}")
        if self.cost.died:
            said.append(f"processes {self.cost.died} of the gateway ended")
        if self.cost.held:
            said.append(f"the event loop was held for more than {FREEZE:g} s {self.cost.held} times")
        if self.cost.freeze > (FREEZE if self.cost.held is None else FREEZE_SEEN):
            said.append(f"the event loop was held for {self.cost.freeze:.2f} s")
        if self.cost.peak > PEAK:
            said.append(f"{self.cost.peak:.0f} MB were taken")
        if self.cost.kept > KEPT:
            said.append(f"{self.cost.kept:.0f} MB were kept")
        for what, seconds in self.neighbour.items():
            if (longest := percentile(seconds, 0.99)) > PATIENCE[what]:
                said.append(f"an honest {what} took {longest:.2f} s")
        return said


def try_kind(gateways: Gateways, kind: Kind, workers: int) -> Tried:
    """Attack, and measure."""
    served = gateways.get(kind.setup, workers)
    target = Target(served)
    if kind.prepare:
        kind.prepare()
    failures: list[str] = []
    with Watch(served) as watch, Neighbour(served, kind.beside) as neighbour:
        began = time.perf_counter()
        try:
            kind.attack(target)
        except (AssertionError, OSError) as error:
            failures.append(f"{type(error).__name__}: {error}"[:500])
        seconds = time.perf_counter() - began
        time.sleep(_AFTER)
    return Tried(kind, workers, target, watch.cost, seconds, neighbour.seconds, failures + neighbour.failures)


def table(tried: Iterable[Tried]) -> str:
    """A table in Markdown, a line for each attack."""
    lines = [
        "| attack | workers | sent | answers | took | freeze | held > 0.1 s | memory | kept | neighbour p50 | p99 |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(_line, tried),
    ]
    return "\n".join(lines) + "\n"


def _line(tried: Tried) -> str:
    cost = tried.cost
    answers = ", ".join(
        f"{_SAID.get(status, status)} x {number}" for status, number in sorted(tried.target.statuses.items())
    )
    others = [
        " / ".join(f"{1000 * percentile(seconds, share):.0f}" for seconds in tried.neighbour.values()) + " ms"
        for share in (0.5, 0.99)
    ]
    if lost := len([said for said in tried.failures if said.startswith(tuple(tried.neighbour))]):
        others[1] += f", {lost} lost"
    ended = " (ended)" if cost.died else ""
    cells = [
        tried.kind.name,
        str(tried.workers),
        f"{tried.target.sent / 2**20:.2f} MB" if tried.target.sent >= 10_000 else f"{tried.target.sent} B",
        (answers or "-") + ended,
        f"{tried.seconds:.1f} s",
        f"{1000 * cost.freeze:.0f} ms",
        "-" if cost.held is None else str(cost.held),
        f"{cost.peak:.0f} MB",
        f"{cost.kept:.0f} MB",
        *others,
    ]
    return f"| {' | '.join(cells)} |"
