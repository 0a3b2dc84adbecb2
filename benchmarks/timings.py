"""Response timings of any client, and their statistics.

*Time to first token* is the time from a request to its first text. *Between tokens* is the time from the first to the
last text of a request, divided by its tokens after the first, as AIPerf and vLLM's benchmarks compute it. A server that
sends several tokens in one text therefore gains nothing. *Latency* is the time from a request to its last text.
Percentiles are over requests.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Stats = dict[str, float]
"""`tokens/s`, and in seconds `first`, `between` and `latency`, each with ` p50` and ` p99`."""


@dataclass(frozen=True, slots=True)
class ResponseTiming:
    """The timing of one streamed response. All times are seconds of one clock."""

    began: float
    """Send time of the request."""
    arrivals: tuple[float, ...]
    """Arrival time of each text."""
    tokens: int


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile; `share` is 0 to 1. Interpolates linearly, as numpy and AIPerf do.

    Raises `ValueError` without values.
    """
    if not values:
        raise ValueError("There are no values.")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def compute_stats(timings: Sequence[ResponseTiming], warm_up: float, seconds: float, *, drained: bool = False) -> Stats:
    """Return the statistics of the requests that ended within `seconds` after the first `warm_up` seconds.

    The rate counts whole requests between the first and the last of these ends. If streams run in step, their requests
    end in groups, and this rate is too high by up to one group. Set `drained` if `timings` also has the requests that
    ended later. The rate then counts the tokens that arrived within the time, and spreads the tokens of a request
    evenly over its texts. Raises `ValueError` if fewer than three requests ended.
    """
    start = min(timing.began for timing in timings) + warm_up if timings else 0.0
    ended = [timing for timing in timings if start <= timing.arrivals[-1] <= start + seconds]
    ended.sort(key=lambda timing: timing.arrivals[-1])
    if len(ended) < 3:
        raise ValueError(f"Only {len(ended)} requests ended within {seconds:.0f} s.")
    if drained:
        arrived = [
            timing.tokens / len(timing.arrivals) * sum(start <= at < start + seconds for at in timing.arrivals)
            for timing in timings
        ]
        stats = {"tokens/s": sum(arrived) / seconds}
    else:
        elapsed = ended[-1].arrivals[-1] - ended[0].arrivals[-1]
        stats = {"tokens/s": sum(timing.tokens for timing in ended[1:]) / elapsed}
    for name, values in {
        "first": [timing.arrivals[0] - timing.began for timing in ended],
        "between": [(timing.arrivals[-1] - timing.arrivals[0]) / max(1, timing.tokens - 1) for timing in ended],
        "latency": [timing.arrivals[-1] - timing.began for timing in ended],
    }.items():
        stats |= {f"{name} p50": percentile(values, 0.5), f"{name} p99": percentile(values, 0.99)}
    return stats


def medians(rounds: Sequence[Stats]) -> Stats:
    """Return the median of each statistic over the rounds."""
    return {name: statistics.median(stats[name] for stats in rounds) for name in rounds[0]}
