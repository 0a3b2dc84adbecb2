"""When the answers to requests came, whatever asked for them, and the figures that follow from it.

*Time to first token* runs from a request to its first text; *between tokens* is a request's time from its first to its
last text over the tokens that came after the first, as AIPerf and vLLM's benchmarks count it, so that texts of several
tokens do not flatter anybody; *latency* runs to the last text. Percentiles are over requests.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Stats = dict[str, float]
"""`tokens/s`, and in seconds `first`, `between` and `latency`, each with ` p50` and ` p99`."""


@dataclass(frozen=True, slots=True)
class ResponseTiming:
    """One streamed answer; moments are seconds of one clock."""

    began: float
    arrivals: tuple[float, ...]
    """When its texts came."""
    tokens: int


def percentile(values: Sequence[float], share: float) -> float:
    """Interpolate linearly between neighbours, as numpy and AIPerf do. Raises `ValueError` where there are none."""
    if not values:
        raise ValueError("There are no values.")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def compute_stats(timings: Sequence[ResponseTiming], warm_up: float, seconds: float, *, drained: bool = False) -> Stats:
    """Of the requests that ended within `seconds` after the first `warm_up` seconds.

    The rate is counted between the first and the last of these ends: whole requests in whole intervals. Where streams
    keep step, their ends come in clumps, and this rate is too high by up to a clump. `drained` says that also the
    requests are among `timings` that ended later: then the rate is that of the tokens that came within the time, those
    of a request alike for each of its texts. Raises `ValueError` where fewer than three requests ended.
    """
    start = min(timing.began for timing in timings) + warm_up if timings else 0.0
    inside = [timing for timing in timings if start <= timing.arrivals[-1] <= start + seconds]
    inside.sort(key=lambda timing: timing.arrivals[-1])
    if len(inside) < 3:
        raise ValueError(f"Only {len(inside)} requests ended within {seconds:.0f} s.")
    if drained:
        came = [
            timing.tokens / len(timing.arrivals) * sum(start <= moment < start + seconds for moment in timing.arrivals)
            for timing in timings
        ]
        found = {"tokens/s": sum(came) / seconds}
    else:
        passed = inside[-1].arrivals[-1] - inside[0].arrivals[-1]
        found = {"tokens/s": sum(timing.tokens for timing in inside[1:]) / passed}
    for name, values in {
        "first": [timing.arrivals[0] - timing.began for timing in inside],
        "between": [(one.arrivals[-1] - one.arrivals[0]) / max(1, one.tokens - 1) for one in inside],
        "latency": [timing.arrivals[-1] - timing.began for timing in inside],
    }.items():
        found |= {f"{name} p50": percentile(values, 0.5), f"{name} p99": percentile(values, 0.99)}
    return found


def medians(rounds: Sequence[Stats]) -> Stats:
    """Of each figure over the rounds."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
