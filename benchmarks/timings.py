"""Response timings of any client, and the statistics of them.

*Time to first token* runs from a request to its first text; *between tokens* is a request's time from its first to its
last text over the tokens that came after the first, as AIPerf and vLLM's benchmarks count it, so that a server that
sends several tokens in one text gains nothing. *Latency* runs to the last text. Percentiles are over requests.
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
    arrivals: tuple[float, ...]
    """When each text arrived."""
    tokens: int


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile; `share` is 0 to 1. Interpolates linearly, as numpy and AIPerf do.

    Raises `ValueError` without values.
    """
    if not values:
        raise ValueError("There are no values.")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def compute_stats(timings: Sequence[ResponseTiming], warm_up: float, seconds: float, *, drained: bool = False) -> Stats:
    """Return the statistics of the requests that ended within `seconds` after the first `warm_up` seconds.

    The rate is measured between the first and the last of these ends: whole requests in whole intervals. Streams that
    run in step end in groups, and this rate is then too high by up to one group. Set `drained` if `timings` also holds
    the requests that ended later: then the rate counts the tokens that arrived within the time, with the tokens of a
    request spread evenly over its texts. Raises `ValueError` if fewer than three requests ended.
    """
    start = min(timing.began for timing in timings) + warm_up if timings else 0.0
    inside = [timing for timing in timings if start <= timing.arrivals[-1] <= start + seconds]
    inside.sort(key=lambda timing: timing.arrivals[-1])
    if len(inside) < 3:
        raise ValueError(f"Only {len(inside)} requests ended within {seconds:.0f} s.")
    if drained:
        arrived = [
            timing.tokens / len(timing.arrivals) * sum(start <= moment < start + seconds for moment in timing.arrivals)
            for timing in timings
        ]
        stats = {"tokens/s": sum(arrived) / seconds}
    else:
        passed = inside[-1].arrivals[-1] - inside[0].arrivals[-1]
        stats = {"tokens/s": sum(timing.tokens for timing in inside[1:]) / passed}
    for name, values in {
        "first": [timing.arrivals[0] - timing.began for timing in inside],
        "between": [(one.arrivals[-1] - one.arrivals[0]) / max(1, one.tokens - 1) for one in inside],
        "latency": [timing.arrivals[-1] - timing.began for timing in inside],
    }.items():
        stats |= {f"{name} p50": percentile(values, 0.5), f"{name} p99": percentile(values, 0.99)}
    return stats


def medians(rounds: Sequence[Stats]) -> Stats:
    """Return the median of each statistic over the rounds."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
