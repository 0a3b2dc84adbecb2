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
"""Most growth of memory, in percent, and of open files under load, which include client connections."""
MAX_FILE_DIFFERENCE = 2.0
"""Most additional files at rest or threads under load: the number of pooled connections varies."""
MAX_SLOWDOWN = 1.25
"""Most slowdown: the median latency of the last third over that of the first."""
MIN_ANSWERS = 50
"""With fewer answers in a third the slowdown is not computed."""
MAX_ROWS = 60
"""Most rows of the table over time."""
_NAMES = {
    "gateway": ("gateway", "MB"), "triton": ("Triton", "MB"), "models": ("its models", "MB"),
    "gateway_files": ("files of the gateway", ""), "triton_files": ("files of Triton and its models", ""),
    "gateway_threads": ("threads of the gateway", ""), "triton_threads": ("threads of Triton and its models", ""),
    "processes": ("processes", ""), "answering": ("the process that answers", "MB"),
}  # fmt: skip
_MEMORY = ("gateway", "triton", "models")
_FILES = ("gateway_files", "triton_files")
_MORE = {"gateway_files": MAX_FILE_DIFFERENCE, "triton_files": MAX_FILE_DIFFERENCE, "processes": 0.0}
"""Most additional files or processes at rest. Threads are compared under load, because thread pools grow and shrink
with the work."""


def thirds(moments: Sequence[tuple[float, float]], seconds: float) -> tuple[list[float], list[float]]:
    """Return the durations of answers requested in the first and in the last third of `seconds`."""
    return (
        [taken for at, taken in moments if at < seconds / 3],
        [taken for at, taken in moments if at >= seconds * 2 / 3],
    )


def slowdown(tally: RequestCounts, seconds: float) -> float | None:
    """Return the slowdown from the first to the last third. Each answer counts relative to its baseline.

    None with fewer than MIN_ANSWERS in a third.
    """
    first, last = thirds(tally.slowness, seconds)
    if min(len(first), len(last)) < MIN_ANSWERS:
        return None
    return statistics.median(last) / statistics.median(first)


def requests(tally: RequestCounts, seconds: float) -> Table:
    """Return the outcomes of each kind of request, and the latencies of the first and the last third."""
    columns = (
        Column("request"), Column("answered"), Column("refused"), Column("hung up"), Column("faults"),
        Column("p50 first third", "s", 3), Column("p50 last third", "s", 3),
        Column("p99 first third", "s", 3), Column("p99 last third", "s", 3),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    counters = (tally.answered, tally.refused, tally.disconnected, tally.num_faults)
    for name in sorted(set().union(*counters)):
        parts = thirds(tally.seconds.get(name, []), seconds)
        shown = [percentile(part, share) if part else None for share in (0.5, 0.99) for part in parts]
        counts = [counter[name] for counter in counters]
        rows.append((name, *counts, *shown))
    totals = [
        sum(counter.values()) for counter in (tally.answered, tally.refused, tally.disconnected, tally.num_faults)
    ]
    rows.append(("all", *totals, None, None, None, None))
    said = f"{STREAMS} requests at a time for {seconds:.0f} s. Answers are as they were alone; drawn ones are valid."
    notes = [said, *tally.faults[:20]]
    bars = [Threshold("requests with a fault", float(totals[3]), 0.0, "at most", digits=0)]
    if (slower := slowdown(tally, seconds)) is None:
        notes.append(
            f"A third of the time had fewer than {MIN_ANSWERS} answers: too few to say whether they became slower."
        )
    else:
        bars.append(Threshold("how slow answers are, last third ÷ first", slower, MAX_SLOWDOWN, "at most", digits=2))
    return Table("Requests", columns, rows, tuple(notes), thresholds=tuple(bars))


def over_time(seen: Sequence[ResourceUsage]) -> Table:
    """Return the resources during the load, with thresholds on the last quarter over the first."""
    step = -(-len(seen) // MAX_ROWS)
    columns = (Column("time", "s"), *(Column(name, unit) for name, unit in _NAMES.values()))
    rows = [tuple(getattr(each, field.name) for field in fields(ResourceUsage)) for each in seen[::step]]
    first, last = first_and_last(seen)
    bars = tuple(
        Threshold(f"growth of {_NAMES[name][0]} under load", growth_percent(getattr(first, name), getattr(last,
        name)), MAX_GROWTH_PERCENT,
            "at most", "%", 1)
        for name in (*_MEMORY, *_FILES)
    )  # fmt: skip
    for name in ("gateway_threads", "triton_threads"):
        more = float(getattr(last, name) - getattr(first, name))
        bars += (Threshold(f"more {_NAMES[name][0]} under load", more, MAX_FILE_DIFFERENCE, "at most", digits=0),)
    plots = (
        Plot("time", ("gateway", "Triton"), title="Memory during the load: gateway and tritonserver"),
        Plot("time", ("its models",), title="Memory during the load: processes of the models"),
        Plot("time", tuple(name for name, unit in _NAMES.values() if not unit), title="Files, threads and processes"),
    )
    details = {"every look": [[getattr(each, field.name) for field in fields(ResourceUsage)] for each in seen]}
    return Table("What is held during the load", columns, rows, (), plots, bars, details=details)


def at_rest(before: ResourceUsage, after: ResourceUsage, left: dict[str, float]) -> Table:
    """Return the resources at rest, after the warm-up and after the load."""
    rows: list[tuple[Value, ...]] = []
    for name, (title, unit) in _NAMES.items():
        pair = getattr(before, name), getattr(after, name)
        rows.append((f"{title}, {unit}" if unit else title, *map(float, pair), growth_percent(*pair)))
    bars = [
        Threshold(f"growth of {_NAMES[name][0]} at rest", growth_percent(getattr(before, name), getattr(after, name)),
        MAX_GROWTH_PERCENT,
            "at most", "%", 1)
        for name in _MEMORY
    ]  # fmt: skip
    for name, most in _MORE.items():
        more = float(getattr(after, name) - getattr(before, name))
        bars.append(Threshold(f"more {_NAMES[name][0]} at rest", more, most, "at most", digits=0))
    bars.append(Threshold("rows, texts and requests still under way", sum(left.values()), 0.0, "at most", digits=0))
    columns = (Column(""), Column("after the warm-up"), Column("after the load"), Column("growth", "%", 1))
    return Table(
        "What is held at rest", columns, rows, tuple(f"{k}: {v:g}" for k, v in left.items()), thresholds=tuple(bars)
    )


def bursts(found: Sequence[Burst], faults: Sequence[str]) -> Table:
    """Return the results of the bursts."""
    columns = (
        Column("at once"), Column("asked"), Column("answered"), Column("most open at once"), Column("time", "s", 1),
        Column("gateway before", "MB"), Column("gateway at most", "MB"),
    )  # fmt: skip
    rows = [(c.what, BURST, c.answered, c.open_at_once, c.seconds, c.before, c.most) for c in found]
    bars = tuple(
        Threshold(f"{c.what} at once that were answered", float(c.answered), float(BURST), digits=0) for c in found
    )
    return Table("As many at once as one caller may ask", columns, rows, tuple(faults), thresholds=bars)


def outages(outage: Outage, faults: Sequence[str]) -> Table:
    """Return what clients saw while Triton was killed and restarted."""
    rows = [
        ("answers that were cut off, each with an error", float(outage.num_cut)),
        ("from the kill to the last of these errors, s", outage.cut_longest),
        ("requests refused while it was away (503, Retry-After)", float(outage.refused)),
        ("the longest that one waited to be refused, s", outage.refused_longest),
        ("from the new start until Triton was ready, s", outage.ready),
        ("from then to the first answer through the gateway, s", outage.found),
        ("answers afterwards, each as it was alone", float(outage.answered)),
    ]
    bars = (Threshold("faults of the outage", float(len(outage.faults)), 0.0, "at most", digits=0),)
    return Table(
        "Triton killed under load", (Column(""), Column("found", digits=2)), rows, tuple(faults), thresholds=bars
    )
