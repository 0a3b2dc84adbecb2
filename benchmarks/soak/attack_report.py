"""The tables of a soak with attackers among the callers."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.soak.attackers import NUM_ATTACKERS, AttackResults
from benchmarks.soak.load import RequestCounts
from benchmarks.soak.report import MIN_ANSWERS
from benchmarks.soak.resources import ResourceUsage, first_and_last
from benchmarks.tables import Column, Table, Threshold, Value
from benchmarks.timings import percentile

MAX_GROWTH_AT_REST = {"answering": 128.0, "triton": 32.0, "models": 1024.0, "triton_files": 128.0}
"""What each may hold more at rest than before the attacks, memory in megabytes: what the suite of attacks allows the
process that answers, and what the caches of the models are bounded to, which attackers fill: a structure is kept in a
process of its own (`backends/llm/structured_outputs/limits.py`)."""
MAX_GROWTH_UNDER_ATTACK = 256.0
"""Megabytes that the process that answers may take under attack, by the median, beyond what it held at rest before."""
_NAMES = {
    "answering": "memory of the process that answers", "triton": "memory of Triton", "models": "memory of its models",
    "triton_files": "files of Triton and its models",
}  # fmt: skip


def with_and_without(quiet: RequestCounts, under: RequestCounts) -> Table:
    """What honest callers saw without attackers and with them: seconds, and how many times as long."""
    columns = (
        Column("request"), Column("answered without"), Column("answered with"),
        Column("p50 without", "s", 3), Column("p50 with", "s", 3),
        Column("p99 without", "s", 3), Column("p99 with", "s", 3), Column("p50 with ÷ without", digits=2),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for name in sorted({*quiet.seconds, *under.seconds}):
        rows.append(_row(name, quiet.seconds.get(name, []), under.seconds.get(name, [])))
    rows.append(_row("all, as multiples of what each took alone", quiet.slowness, under.slowness))
    return Table("Honest callers without and with attackers", columns, rows)


def _row(name: str, quiet: Sequence[tuple[float, float]], under: Sequence[tuple[float, float]]) -> tuple[Value, ...]:
    before, beside = [taken for _, taken in quiet], [taken for _, taken in under]
    shown = [percentile(each, share) if each else None for share in (0.5, 0.99) for each in (before, beside)]
    ratio = (
        statistics.median(beside) / statistics.median(before) if min(len(before), len(beside)) >= MIN_ANSWERS else None
    )
    return (name, len(before), len(beside), *shown, ratio)


def without_growth(table: Table) -> Table:
    """A table of what was held, without the bars that attacks miss by their nature.

    Memory that large bodies and new structures leave behind has bars of its own, as have files; the gateway's readers
    and connections come and go.
    """
    words = ("growth of", "gateway", "files", "processes")
    kept = [bar for bar in table.thresholds if not any(word in bar.name for word in words)]
    return replace(table, thresholds=tuple(kept))


def attacks(
    attacked: AttackResults, before: ResourceUsage, after: ResourceUsage, seen: Sequence[ResourceUsage]
) -> Table:
    """What became of the attacks, and what the gateway held beside them."""
    rows: list[tuple[Value, ...]] = [
        ("attacks", sum(attacked.attempts.values())),
        ("kinds of them", len(attacked.attempts)),
        ("megabytes sent", round(attacked.megabytes)),
        *((f"answered {status}", number) for status, number in sorted(attacked.statuses.items())),
    ]
    under = max((held.answering for held in first_and_last(seen)), default=before.answering)
    bars = [
        Threshold("attacks that went otherwise than they must", float(len(attacked.wrong)), 0.0, "at most", digits=0),
        Threshold(
            "memory of the process that answers, under attack",
            under - before.answering,
            MAX_GROWTH_UNDER_ATTACK,
            "at most",
            " MB",
            0,
        ),
    ]
    for name, most in MAX_GROWTH_AT_REST.items():
        more = getattr(after, name) - getattr(before, name)
        unit = "" if name.endswith("files") else " MB"
        bars.append(Threshold(f"more {_NAMES[name]} at rest after attacks", float(more), most, "at most", unit, 0))
    said = f"{NUM_ATTACKERS} attackers at a time; status 0: the connection was closed without an answer."
    return Table("Attacks", (Column(""), Column("found")), rows, (said, *attacked.wrong[:20]), thresholds=tuple(bars))
