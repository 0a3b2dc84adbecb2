"""Measures the models over gRPC with perf_analyzer, without the gateway, at 1 to 64 requests in flight.

The requests for the chat, embedding and image models are the profiles of benchmarks/profiles, which also run against
other servers. These models are *decoupled*: they answer with streams of responses, and Triton accepts no unary calls
for such models. Unary calls are therefore measured on the text encoder of the image model. Each chat prompt is sent
once, so that the prefix cache does not affect the result. Rates are counted between the first and the last request that
ended within the measured time.
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

SendLoad = Callable[[Sequence[profiles.Request] | None, int, float], list[ResponseTiming]]
"""A function of the requests, the number of requests in flight, and the duration in seconds."""


@dataclass(frozen=True, slots=True)
class SweepLoad:
    """A model, its requests, and the duration of each measurement."""

    title: str
    unit: str
    model: str
    options: tuple[str, ...]
    requests: tuple[profiles.Request, ...] | None = None
    tokens: int = 1
    """Units that one response counts for: tokens, texts or images."""
    seconds: float = 6.0
    """Seconds of measurement with one request in flight. More requests in flight are measured longer."""
    streamed: bool = False


def loads(chat: str) -> list[SweepLoad]:
    """Return all loads; `chat` is the name of the chat model."""
    rows = [
        ("chat", "Chats, streamed: 64 words in, 64 tokens out", "tokens/s", chat, profiles.NEW_TOKENS, 6.0),
        ("embedding", "Embeddings, a text of 3 to 140 words a request", "texts/s", EMBEDDING_MODEL, 1, 4.0),
        ("image", "Images of 20 steps, one a request", "images/s", IMAGE_MODEL, 1, 7.0),
    ]
    loads = []
    for name, title, unit, model, tokens, seconds in rows:
        profile = profiles.load(name)
        loads.append(
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
    loads.append(
        SweepLoad("Unary: the text encoder of the image model", "requests/s", TEXT_ENCODER_MODEL, unary, seconds=3.0)
    )
    return loads


def without_durations(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a profile's arguments without `DURATION_OPTIONS` and their values."""
    pairs = list(zip(arguments, (*arguments[1:], ""), strict=True))
    return tuple(
        word
        for number, (word, _) in enumerate(pairs)
        if word not in DURATION_OPTIONS and (number == 0 or pairs[number - 1][0] not in DURATION_OPTIONS)
    )


DURATION_OPTIONS = ("-p", "-s", "-r")


def measure_until_enough(
    send_load: Callable[[float], list[ResponseTiming]], warm_up: float, seconds: float, tail: float = 0.0
) -> tuple[list[ResponseTiming], Stats]:
    """Run a load for `warm_up + seconds`, and return its timings and statistics. All times are in seconds.

    If the machine is too slow, the measurement is repeated with twice and with four times the time. With a `tail`, the
    load runs on for so long after the measured time: perf_analyzer does not report the requests that are in flight
    when it ends, and the tail lets those of the measured time complete. The tail is doubled with the measured time if a
    response takes longer than it. Raises `TooSlow` or `ValueError` if the longest measurement is too short as well.
    """
    factor = 1
    while True:
        try:
            timings = send_load(factor * (seconds + tail) + warm_up)
            longest = max((timing.arrivals[-1] - timing.began for timing in timings), default=0.0)
            if tail and longest > factor * tail:
                raise perf_analyzer.TooSlow(f"A response took {longest:.1f} s, and {factor * tail:.1f} s were waited.")
            return timings, compute_stats(timings, warm_up, factor * seconds, drained=tail > 0)
        except (perf_analyzer.TooSlow, ValueError):
            if factor == 4:
                raise
            factor *= 2


def sweep(
    send_load: SendLoad, load: SweepLoad, concurrencies: Sequence[int], time_factor: float = 1.0
) -> list[tuple[int, Stats]]:
    """Measure the load at each number of requests in flight. The measured time is multiplied by `time_factor`.

    A measurement starts with the requests that the ones before it did not send.
    """
    results, num_used = [], 0
    for concurrency in concurrencies:
        requests = (*load.requests[num_used:], *load.requests[:num_used]) if load.requests else None
        # Each request in flight must be answered at least once within the measured time.
        seconds = time_factor * load.seconds * (1 + concurrency / 32)
        timings, stats = measure_until_enough(partial(send_load, requests, concurrency), WARM_UP, seconds)
        num_used = (num_used + len(timings) + concurrency) % len(load.requests) if load.requests else 0
        results.append((concurrency, stats))
    return results


def run(repository: Path, model: str, cache: Path, *, quick: bool = False) -> list[Table]:
    """Serve all models, and measure those of the repository. Raises `RuntimeError` if perf_analyzer fails."""
    program: Executable = perf_analyzer.install(cache)
    tables = []
    with deploy(repository, model) as running:
        for load in loads(model):
            if not (repository / load.model).is_dir():
                continue
            options = ("-u", running.triton_url, "-m", load.model, *load.options)
            send_load = partial(perf_analyzer.measure, program, options, tokens=load.tokens)
            tables.append(table(load, sweep(send_load, load, *((QUICK, 0.5) if quick else (CONCURRENCIES,)))))
    return tables


def table(load: SweepLoad, results: Sequence[tuple[int, Stats]]) -> Table:
    """Return the table of rates and latencies, with each rate over that of a single request in flight."""
    shares = ("p50", "p99")
    first = tuple(Column(f"first token {share}", "ms", 1) for share in shares)
    between = tuple(Column(f"between tokens {share}", "ms", 2) for share in shares)
    latency = tuple(Column(f"latency {share}", "ms", 1) for share in shares)
    columns = (
        Column("in flight"),
        Column("rate", load.unit, 1),
        Column("÷ one in flight", digits=2),
        *((*first, *between) if load.streamed else ()),
        *latency,
    )
    names = [*(("first", "between") if load.streamed else ()), "latency"]
    single_rate = results[0][1]["tokens/s"]
    rows: list[tuple[Value, ...]] = []
    for concurrency, stats in results:
        milliseconds = [1000 * stats[f"{name} {share}"] for name in names for share in shares]
        rows.append((concurrency, stats["tokens/s"], stats["tokens/s"] / single_rate, *milliseconds))
    plotted = first if load.streamed else latency
    plots = (
        Plot("in flight", ("rate",), log_x=True),
        Plot(
            "in flight",
            tuple(column.name for column in plotted),
            title=f"{load.title}: {'first token' if load.streamed else 'latency'}",
            log_x=True,
            log_y=True,
        ),
    )
    return Table(load.title, columns, rows, plots=plots, versions={"perf_analyzer": perf_analyzer.VERSION})
