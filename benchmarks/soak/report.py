"""The result tables of a soak, and their thresholds."""

import statistics
from collections.abc import Sequence
from dataclasses import fields

from benchmarks.soak.burst import Burst
from benchmarks.soak.deployment import BURST
from benchmarks.soak.load import STREAMS, RequestCounts
from benchmarks.soak.outage import Outage
from benchmarks.soak.resources import ResourceUsage, first_and_last, growth_percent
from benchmarks.tables import Column, Plot, Table, Threshold, Value
from benchmarks.timings import percentile

MAX_GROWTH_PERCENT = 5.0
"""Most growth in percent: of memory, and of open files under load, which include client connections."""
MAX_FILE_DIFFERENCE = 2.0
"""Most additional files at rest or threads under load: the number of pooled connections varies."""
MAX_SLOWDOWN = 1.25
"""Most slowdown: the median latency of the last third over that of the first."""
MIN_ANSWERS = 50
"""With fewer answers in a third the slowdown is not computed."""
MAX_ROWS = 60
"""Most rows of the table over time."""
_NAMES = {
    "gateway": ("gateway", "MB"), "triton": ("Triton", "MB"), "models": ("models", "MB"),
    "gateway_files": ("open files of the gateway", ""), "triton_files": ("open files of Triton and the models", ""),
    "gateway_threads": ("threads of the gateway", ""), "triton_threads": ("threads of Triton and the models", ""),
    "processes": ("processes", ""), "answering": ("worker process", "MB"),
}  # fmt: skip
_MEMORY = ("gateway", "triton", "models")
_FILES = ("gateway_files", "triton_files")
_MAX_DIFFERENCES = {"gateway_files": MAX_FILE_DIFFERENCE, "triton_files": MAX_FILE_DIFFERENCE, "processes": 0.0}
"""Most additional files or processes at rest. Threads are compared under load, because thread pools grow and shrink
with the work."""


def thirds(latencies: Sequence[tuple[float, float]], seconds: float) -> tuple[list[float], list[float]]:
    """Return the latencies of answers requested in the first and in the last third of `seconds`.

    `latencies` are pairs of a request time and a latency.
    """
    return (
        [latency for at, latency in latencies if at < seconds / 3],
        [latency for at, latency in latencies if at >= seconds * 2 / 3],
    )


def slowdown(counts: RequestCounts, seconds: float) -> float | None:
    """Return the slowdown from the first to the last third. Each answer counts relative to its baseline.

    None with fewer than MIN_ANSWERS in a third.
    """
    first, last = thirds(counts.slowness, seconds)
    if min(len(first), len(last)) < MIN_ANSWERS:
        return None
    return statistics.median(last) / statistics.median(first)


def requests(counts: RequestCounts, seconds: float) -> Table:
    """Return the outcomes of each type of request, and the latencies of the first and the last third."""
    columns = (
        Column("request"), Column("answered"), Column("refused"), Column("disconnected"), Column("faults"),
        Column("p50 first third", "s", 3), Column("p50 last third", "s", 3),
        Column("p99 first third", "s", 3), Column("p99 last third", "s", 3),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    counters = (counts.answered, counts.refused, counts.disconnected, counts.num_faults)
    for name in sorted(set().union(*counters)):
        parts = thirds(counts.seconds.get(name, []), seconds)
        percentiles = [percentile(part, share) if part else None for share in (0.5, 0.99) for part in parts]
        rows.append((name, *(counter[name] for counter in counters), *percentiles))
    totals = [sum(counter.values()) for counter in counters]
    rows.append(("all", *totals, None, None, None, None))
    note = (
        f"{STREAMS} requests in flight for {seconds:.0f} s. Each answer equals its baseline. Sampled answers have no"
        " baseline and are valid."
    )
    notes = [note, *counts.faults[:20]]
    thresholds = [Threshold("requests with a fault", float(totals[3]), 0.0, "at most", digits=0)]
    if (ratio := slowdown(counts, seconds)) is None:
        notes.append(f"The slowdown is not computed: a third has fewer than {MIN_ANSWERS} answers, which is too few.")
    else:
        title = "slowdown of answers, last third ÷ first third"
        thresholds.append(Threshold(title, ratio, MAX_SLOWDOWN, "at most", digits=2))
    return Table("Requests", columns, rows, tuple(notes), thresholds=tuple(thresholds))


def over_time(samples: Sequence[ResourceUsage]) -> Table:
    """Return the resources during the load, with thresholds on the last quarter over the first."""
    step = -(-len(samples) // MAX_ROWS)
    columns = (Column("time", "s"), *(Column(name, unit) for name, unit in _NAMES.values()))
    rows = [tuple(getattr(usage, field.name) for field in fields(ResourceUsage)) for usage in samples[::step]]
    first, last = first_and_last(samples)
    thresholds = []
    for name in (*_MEMORY, *_FILES):
        growth = growth_percent(getattr(first, name), getattr(last, name))
        title = f"growth of {_NAMES[name][0]} under load"
        thresholds.append(Threshold(title, growth, MAX_GROWTH_PERCENT, "at most", "%", 1))
    for name in ("gateway_threads", "triton_threads"):
        difference = float(getattr(last, name) - getattr(first, name))
        title = f"more {_NAMES[name][0]} under load"
        thresholds.append(Threshold(title, difference, MAX_FILE_DIFFERENCE, "at most", digits=0))
    plots = (
        Plot("time", ("gateway", "Triton"), title="Memory during the load: gateway and tritonserver"),
        Plot("time", ("models",), title="Memory during the load: processes of the models"),
        Plot(
            "time", tuple(name for name, unit in _NAMES.values() if not unit), title="Open files, threads and processes"
        ),
    )
    details = {"samples": [[getattr(usage, field.name) for field in fields(ResourceUsage)] for usage in samples]}
    return Table("Resources during the load", columns, rows, (), plots, tuple(thresholds), details=details)


def at_rest(before: ResourceUsage, after: ResourceUsage, gauges: dict[str, float]) -> Table:
    """Return the resources at rest, after the warm-up and after the load.

    `gauges` are the metrics of work in progress that did not fall to 0.
    """
    rows: list[tuple[Value, ...]] = []
    for name, (title, unit) in _NAMES.items():
        pair = getattr(before, name), getattr(after, name)
        rows.append((f"{title}, {unit}" if unit else title, *map(float, pair), growth_percent(*pair)))
    thresholds = []
    for name in _MEMORY:
        growth = growth_percent(getattr(before, name), getattr(after, name))
        title = f"growth of {_NAMES[name][0]} at rest"
        thresholds.append(Threshold(title, growth, MAX_GROWTH_PERCENT, "at most", "%", 1))
    for name, limit in _MAX_DIFFERENCES.items():
        difference = float(getattr(after, name) - getattr(before, name))
        thresholds.append(Threshold(f"more {_NAMES[name][0]} at rest", difference, limit, "at most", digits=0))
    in_progress = sum(gauges.values())
    thresholds.append(Threshold("rows, texts and requests in progress", in_progress, 0.0, "at most", digits=0))
    columns = (Column(""), Column("after the warm-up"), Column("after the load"), Column("growth", "%", 1))
    notes = tuple(f"{name}: {value:g}" for name, value in gauges.items())
    return Table("Resources at rest", columns, rows, notes, thresholds=tuple(thresholds))


def bursts(results: Sequence[Burst], faults: Sequence[str]) -> Table:
    """Return the results of the bursts."""
    columns = (
        Column("operation"), Column("sent"), Column("answered"), Column("max in flight"), Column("time", "s", 1),
        Column("gateway before", "MB"), Column("gateway peak", "MB"),
    )  # fmt: skip
    rows = [
        (burst.operation, BURST, burst.answered, burst.max_in_flight, burst.seconds, burst.memory_before,
         burst.peak_memory)
        for burst in results
    ]  # fmt: skip
    thresholds = tuple(
        Threshold(f"{burst.operation} of the burst that were answered", float(burst.answered), float(BURST), digits=0)
        for burst in results
    )
    title = f"Bursts of {BURST:,} requests, the limit of one caller"
    return Table(title, columns, rows, tuple(faults), thresholds=thresholds)


def outages(outage: Outage, faults: Sequence[str]) -> Table:
    """Return what clients saw while Triton was killed and restarted."""
    rows = [
        ("responses that were cut off, each with an error", float(outage.num_cut)),
        ("time from the kill to the last of these errors, s", outage.cut_longest),
        ("requests refused during the outage (503 with Retry-After)", float(outage.num_refused)),
        ("longest time until a refusal, s", outage.refused_longest),
        ("time from the restart until Triton was ready, s", outage.ready),
        ("time from then to the first answer through the gateway, s", outage.first_answer),
        ("answers afterwards, each compared with its baseline", float(outage.num_answered)),
    ]
    thresholds = (Threshold("faults of the outage", float(len(outage.faults)), 0.0, "at most", digits=0),)
    columns = (Column(""), Column("result", digits=2))
    return Table("Triton killed under load", columns, rows, tuple(faults), thresholds=thresholds)
