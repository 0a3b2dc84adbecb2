"""What perf_analyzer gets out of the models over gRPC, without the gateway, at 1 to 64 requests in flight.

The chat, embedding and image models are asked by the profiles of benchmarks/profiles, which also run against other
servers. These models answer in streams of responses (they are *decoupled*), and Triton takes no unary calls for such;
so the unary calls go to a part of the image model, its text encoder. No prompt of a chat comes twice, so that nothing
is remembered of it. Rates are counted between the first and the last request that ended in the measured seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import perf_analyzer, profiles
from benchmarks.deployment import deploy
from benchmarks.models import EMBEDDING_MODEL, IMAGE_MODEL
from benchmarks.perf_analyzer import Executable
from benchmarks.tables import Column, Plot, Table, Value
from benchmarks.timings import ResponseTiming, Stats, compute_stats

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)
QUICK = (1, 16, 64)
TEXT_ENCODER_MODEL = f"{IMAGE_MODEL}-text-encoder"
WARM_UP = 2.0

Ask = Callable[[Sequence[profiles.Request] | None, int, float], list[ResponseTiming]]
"""Ask these, so many at once, for so many seconds."""


@dataclass(frozen=True, slots=True)
class SweepLoad:
    """A model that is asked, and for how long at each number of requests in flight."""

    title: str
    unit: str
    model: str
    options: tuple[str, ...]
    requests: tuple[profiles.Request, ...] | None = None
    tokens: int = 1
    """What one answer counts for."""
    seconds: float = 6.0
    """At one request in flight; an answer of `slowest` seconds is waited for besides."""
    streamed: bool = False


def loads(chat: str) -> list[SweepLoad]:
    """What is asked; `chat` is the model that chats."""
    wanted = [
        ("chat", "Chats, streamed: 64 words in, 64 tokens out", "tokens/s", chat, profiles.NEW_TOKENS, 6.0),
        ("embedding", "Embeddings, a text of 3 to 140 words a request", "texts/s", EMBEDDING_MODEL, 1, 4.0),
        ("image", "Pictures of 20 steps, one a request", "pictures/s", IMAGE_MODEL, 1, 7.0),
    ]
    found = []
    for name, title, unit, model, tokens, seconds in wanted:
        profile = profiles.load(name)
        found.append(
            SweepLoad(
                title,
                unit,
                model,
                without_durations(profile.arguments),
                profile.requests,
                tokens,
                seconds,
                name == "chat",
            )
        )
    unary = ("-i", "grpc", "--async", "--max-threads", "4")
    found.append(
        SweepLoad("Unary: the text encoder of the image model", "requests/s", TEXT_ENCODER_MODEL, unary, seconds=3.0)
    )
    return found


def without_durations(arguments: Sequence[str]) -> tuple[str, ...]:
    """A profile's arguments without those that say how long to measure."""
    pairs = list(zip(arguments, (*arguments[1:], ""), strict=True))
    return tuple(
        word
        for number, (word, _) in enumerate(pairs)
        if word not in DURATION_OPTIONS and (number == 0 or pairs[number - 1][0] not in DURATION_OPTIONS)
    )


DURATION_OPTIONS = ("-p", "-s", "-r")


def measure_until_enough(
    ask: Callable[[float], list[ResponseTiming]], warm_up: float, seconds: float, tail: float = 0.0
) -> tuple[list[ResponseTiming], Stats]:
    """Ask for so many seconds; where the machine is too slow for them, for twice and four times as many.

    With a `tail` it goes on for so long, so that what was under way when the seconds were over is known as well: what
    perf_analyzer has in flight when it ends is not told. The tail, too, becomes twice and four times as long where an
    answer takes longer than it. Raises `TooSlow` or `ValueError` where even that does not do.
    """
    times = 1
    while True:
        try:
            timings = ask(times * (seconds + tail) + warm_up)
            longest = max((timing.arrivals[-1] - timing.began for timing in timings), default=0.0)
            if tail and longest > times * tail:
                raise perf_analyzer.TooSlow(f"An answer took {longest:.1f} s, and {times * tail:.1f} s were waited.")
            return timings, compute_stats(timings, warm_up, times * seconds, drained=tail > 0)
        except (perf_analyzer.TooSlow, ValueError):
            if times == 4:
                raise
            times *= 2


def sweep(ask: Ask, load: SweepLoad, at_once: Sequence[int], part: float = 1.0) -> list[tuple[int, Stats]]:
    """Ask at each number of requests in flight; requests are not used twice while there are others.

    `part` of the time is measured.
    """
    found, used = [], 0
    for number in at_once:
        turned = (*load.requests[used:], *load.requests[:used]) if load.requests else None
        # All that are in flight must be answered at least once before the measured seconds are over.
        seconds = part * load.seconds * (1 + number / 32)
        timings, each = measure_until_enough(partial(ask, turned, number), WARM_UP, seconds)
        used = (used + len(timings) + number) % len(load.requests) if load.requests else 0
        found.append((number, each))
    return found


def run(repository: Path, model: str, cache: Path, *, quick: bool = False) -> list[Table]:
    """Serve all models, and ask those that are there. Raises `RuntimeError` with what perf_analyzer said."""
    program: Executable = perf_analyzer.install(cache)
    tables = []
    with deploy(repository, model) as running:
        for load in loads(model):
            if not (repository / load.model).is_dir():
                continue
            options = ("-u", running.triton_url, "-m", load.model, *load.options)
            ask = partial(perf_analyzer.measure, program, options, tokens=load.tokens)
            tables.append(table(load, sweep(ask, load, *((QUICK, 0.5) if quick else (CONCURRENCIES,)))))
    return tables


def table(load: SweepLoad, found: Sequence[tuple[int, Stats]]) -> Table:
    """Rates and waits, and what the rate is of that of a single request in flight."""
    shares = ("p50", "p99")
    first = tuple(Column(f"first token {share}", "ms", 1) for share in shares)
    between = tuple(Column(f"between tokens {share}", "ms", 2) for share in shares)
    latency = tuple(Column(f"latency {share}", "ms", 1) for share in shares)
    columns = (
        Column("in flight"),
        Column("rate", load.unit, 1),
        Column("÷ alone", digits=2),
        *((*first, *between) if load.streamed else ()),
        *latency,
    )
    wanted = [*(("first", "between") if load.streamed else ()), "latency"]
    alone = found[0][1]["tokens/s"]
    rows: list[tuple[Value, ...]] = []
    for number, each in found:
        waits = [1000 * each[f"{what} {share}"] for what in wanted for share in shares]
        rows.append((number, each["tokens/s"], each["tokens/s"] / alone, *waits))
    waits_drawn = first if load.streamed else latency
    plots = (
        Plot("in flight", ("rate",), log_x=True),
        Plot(
            "in flight",
            tuple(column.name for column in waits_drawn),
            title=f"{load.title}: {'first token' if load.streamed else 'latency'}",
            log_x=True,
            log_y=True,
        ),
    )
    return Table(load.title, columns, rows, plots=plots, versions={"perf_analyzer": perf_analyzer.VERSION})
