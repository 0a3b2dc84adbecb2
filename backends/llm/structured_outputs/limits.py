"""What one structure may cost."""

from dataclasses import dataclass

# The library's defaults let an ambiguous grammar take 0.7 s for one mask and 0.2 s for one token; with these it is 28
# and 8 ms, after which the grammar is given up as too complex. An object takes four items for each optional member.
MAX_ITEMS_IN_ROW = 1_000
STEP_MAX_ITEMS = 10_000
MAX_GRAMMAR_SIZE = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are seconds of processor time, sizes are bytes.

    A structure is compiled within `quick`, or else once more at a low priority within `compile`; so those that
    take long hold up no others. Schemas with 200 members, or of 40 functions, take 10 ms.
    """

    fast_compile_seconds: float = 0.05
    compile_seconds: float = 1.0
    step_seconds: float = 0.25
    """For one token of an answer, its mask included."""
    base_matching_seconds: float = 2.0
    matching_seconds_per_token: float = 0.02
    """All answers together may take `answers_first`, and this for each of their tokens: an honest one takes 0.1 ms."""
    memory_bytes: int = 128 * 2**20
    """By which one process may grow beyond the fork server."""
    total_memory_bytes: int = 2**30
    """What all processes may have grown together; beyond it the largest is ended."""
    max_processes: int = 64
    max_idle: int = 32
    """Processes that are kept for structures that no answer has at the moment."""
    max_slow_queue: int = 16
    """Structures that wait for the low priority; more are refused as overloaded."""
    wall_seconds: float = 60.0
    """Seconds by the clock for compiling, whatever else the machine does."""


def limits_for(seconds: float, memory: int, rows: int) -> Limits:
    """The limits where a structure may take `seconds` and `memory` to compile, and `rows` answers run side by side."""
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
