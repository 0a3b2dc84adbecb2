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
"""Most growth at rest over the time before the attacks, memory in MiB. The limit of the worker process is that of the
attack suite. Models may grow by the size of their caches, which attackers fill: each cached structure has a process of
its own (`backends/llm/structured_outputs/limits.py`)."""
MAX_GROWTH_UNDER_ATTACK = 256.0
"""Most growth of the worker process under attack over its memory at rest before, in MiB, by medians."""
ALL_REQUESTS = "all, relative to the baselines"
"""The row over all requests: latencies as multiples of the latency of the same request alone."""
_NAMES = {
    "answering": "memory of the worker process", "triton": "memory of Triton", "models": "memory of the models",
    "triton_files": "open files of Triton and the models",
}  # fmt: skip


def with_and_without(without_attackers: RequestCounts, with_attackers: RequestCounts) -> Table:
    """Return the latencies of honest callers without and with attackers in seconds, and the ratios of the medians."""
    columns = (
        Column("request"), Column("answered without"), Column("answered with"),
        Column("p50 without", "s", 3), Column("p50 with", "s", 3),
        Column("p99 without", "s", 3), Column("p99 with", "s", 3), Column("p50 with ÷ without", digits=2),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for name in sorted({*without_attackers.seconds, *with_attackers.seconds}):
        rows.append(_row(name, without_attackers.seconds.get(name, []), with_attackers.seconds.get(name, [])))
    rows.append(_row(ALL_REQUESTS, without_attackers.slowness, with_attackers.slowness))
    return Table("Honest callers without and with attackers", columns, rows)


def _row(
    name: str, without_attackers: Sequence[tuple[float, float]], with_attackers: Sequence[tuple[float, float]]
) -> tuple[Value, ...]:
    before, during = [latency for _, latency in without_attackers], [latency for _, latency in with_attackers]
    percentiles = [
        percentile(latencies, share) if latencies else None for share in (0.5, 0.99) for latencies in (before, during)
    ]
    ratio = None
    if min(len(before), len(during)) >= MIN_ANSWERS:
        ratio = statistics.median(during) / statistics.median(before)
    return (name, len(before), len(during), *percentiles, ratio)


def without_growth(table: Table) -> Table:
    """Return a table of resources without the thresholds that attacks exceed by their nature.

    The table of attacks has thresholds of its own for memory and for Triton's files. The gateway's decoder processes
    and connections vary with the attacks.
    """
    words = ("growth of", "gateway", "files", "processes")
    thresholds = [threshold for threshold in table.thresholds if not any(word in threshold.name for word in words)]
    return replace(table, thresholds=tuple(thresholds))


def attacks(
    results: AttackResults, before: ResourceUsage, after: ResourceUsage, samples: Sequence[ResourceUsage]
) -> Table:
    """Return the results of the attacks, with thresholds on the resources under attack and afterwards."""
    rows: list[tuple[Value, ...]] = [
        ("attacks", sum(results.attempts.values())),
        ("different attacks", len(results.attempts)),
        ("MiB sent", round(results.megabytes)),
        *((f"answered {status}", number) for status, number in sorted(results.statuses.items())),
    ]
    under_attack = max((usage.answering for usage in first_and_last(samples)), default=before.answering)
    thresholds = [
        Threshold("attacks with an unexpected result", float(len(results.wrong)), 0.0, "at most", digits=0),
        Threshold(
            "growth of memory of the worker process under attack",
            under_attack - before.answering,
            MAX_GROWTH_UNDER_ATTACK,
            "at most",
            " MB",
            0,
        ),
    ]
    for name, limit in MAX_GROWTH_AT_REST.items():
        growth = float(getattr(after, name) - getattr(before, name))
        unit = "" if name.endswith("files") else " MB"
        title = f"growth of {_NAMES[name]} at rest after attacks"
        thresholds.append(Threshold(title, growth, limit, "at most", unit, 0))
    note = f"{NUM_ATTACKERS} attackers at a time. Status 0: the connection was closed without a response."
    columns = (Column(""), Column("result"))
    return Table("Attacks", columns, rows, (note, *results.wrong[:20]), thresholds=tuple(thresholds))
