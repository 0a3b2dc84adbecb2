"""Limits of processor time and memory for compiling structures and computing masks."""

from dataclasses import dataclass

# llguidance's own limits. With its defaults, an ambiguous grammar may take 0.7 s for one mask and 0.2 s for one token;
# with these it takes at most 28 and 8 ms before it is rejected as too complex. An object takes four items for each
# optional member.
MAX_ITEMS_IN_ROW = 1_000
STEP_MAX_ITEMS = 10_000
MAX_GRAMMAR_SIZE = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are seconds of processor time unless stated otherwise, sizes are bytes."""

    fast_compile_seconds: float = 0.05
    """Time for the first attempt to compile a structure. One that exceeds it is compiled again at a low priority, so
    that it delays no others. Schemas with 200 members, or of 40 functions, take 10 ms."""
    compile_seconds: float = 1.0
    """Time for the second attempt."""
    step_seconds: float = 0.25
    """Time for one token of an answer, or for its mask."""
    base_matching_seconds: float = 2.0
    """Time that all answers of a structure together may take, in addition to `matching_seconds_per_token`."""
    matching_seconds_per_token: float = 0.02
    """Further time for each of their tokens. An ordinary grammar takes 0.1 ms."""
    memory_bytes: int = 128 * 2**20
    """Memory by which one process may grow beyond the fork server."""
    total_memory_bytes: int = 2**30
    """Memory by which all processes may have grown together. Beyond it, the largest is killed."""
    max_processes: int = 64
    """Processes at a time, with or without answers."""
    max_idle: int = 32
    """Processes that stay cached although no request uses them."""
    max_slow_queue: int = 16
    """Structures that wait for their second attempt; more are refused as overloaded."""
    wall_seconds: float = 60.0
    """Time on the clock for compiling, however busy the machine is."""


def limits_for(seconds: float, memory: int, rows: int) -> Limits:
    """Return the limits of a model with `rows` slots, whose structures may take `seconds` and `memory` to compile."""
    usual = Limits()
    processes = max(usual.max_processes, 2 * rows)
    return Limits(
        compile_seconds=seconds,
        memory_bytes=memory,
        total_memory_bytes=max(8 * memory, processes * 16 * 2**20),
        max_processes=processes,
        max_idle=max(usual.max_idle, rows),
        wall_seconds=usual.wall_seconds * max(1.0, seconds),
    )
