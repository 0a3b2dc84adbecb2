"""The overhead of the gateway: CPU time, added latency and memory, measured in front of a scripted Triton.

The gateway runs on one core. The scripted model and the client, which are not measured, share the others. CPU time is
that of the gateway's processes alone. *Saturated*: the model sends tokens as fast as they are read. *Paced*: each
stream gets a token at a fixed interval, and the starts of the streams are spread evenly over the duration of one. The
added time is the time to first token through the gateway minus that of a gRPC client of the same model; both take turns
in one run. The rates are low enough that the scripted model and the client are not the bottleneck. Values are over all
rounds.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from tritonclient.grpc import service_pb2 as pb

from benchmarks.deployment import wait_for_models
from benchmarks.peer_programs import cpu_seconds, rss_megabytes
from benchmarks.scripted_triton import MODEL, run_scripted_triton
from benchmarks.tables import Column, Plot, Table, Threshold, Value
from benchmarks.timed_streams import StreamTimings, chat_body, run_streams
from benchmarks.timings import percentile
from gateway.triton.rpc.channel import Channel
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

STREAMS = (1, 16, 64, 256, 1024)
TOKENS = 128
TOKEN_INTERVAL = 0.02
PACED_LOADS = (
    (1, 0.001, 2000),
    (1, TOKEN_INTERVAL, TOKENS),
    (16, TOKEN_INTERVAL, TOKENS),
    (64, TOKEN_INTERVAL, TOKENS),
    (256, 0.08, 32),
    (1024, 0.32, 16),
)
"""Number of streams, seconds between the tokens of one, and tokens of one. In all at most 3,200 tokens/s."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A running gateway in front of a scripted Triton."""

    url: str
    triton: str
    process: psutil.Process

    def seconds(self) -> float:
        """Return the CPU seconds of the gateway's processes so far."""
        return cpu_seconds(self.process)

    def megabytes(self) -> float:
        """Return the resident memory of the gateway's processes."""
        return rss_megabytes(self.process)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of one load, or of several rounds of it."""

    streams: int
    timings: StreamTimings
    cpu: float
    """CPU seconds of the gateway."""
    megabytes: float


@contextlib.contextmanager
def run_gateway(every: float = 0.0, together: int = 1) -> Iterator[RunningGateway]:
    """Start the gateway on the first core and the scripted model on the others.

    The model sends a message every `every` seconds with `together` tokens.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(run_scripted_triton(every, together, set(others) or {first}))
        gateway = GatewayProcess("127.0.0.1", free_ports(1)[0], triton, folder / "gateway.log")
        gateway.start()
        stack.callback(gateway.stop)
        gateway.wait_live()
        wait_for_models(gateway)
        process = psutil.Process(gateway.child.pid)
        for each in (process, *process.children(recursive=True)):
            for thread in each.threads():
                os.sched_setaffinity(thread.id, {first})
        os.sched_setaffinity(0, set(others) or {first})
        stack.callback(os.sched_setaffinity, 0, {first, *others})
        yield RunningGateway(gateway.url, triton, process)


def run_load(
    to: RunningGateway, streams: int, tokens: int, requests: int, *, stream: bool = True, spread: float = 0.0
) -> LoadResult:
    """Run one load and return its result."""
    before = to.seconds()
    seen = asyncio.run(run_streams(to.url, chat_body(MODEL, tokens, stream=stream), streams, requests, spread))
    return LoadResult(streams, seen, to.seconds() - before, to.megabytes())


def first_tokens_over_grpc(triton: str, streams: int, tokens: int, requests: int, spread: float = 0.0) -> list[float]:
    """Return the times to first token over gRPC, in seconds, without the gateway but with its own lean gRPC client."""
    asked = pb.ModelInferRequest(model_name=MODEL)
    sampling = b'{"max_tokens": %d}' % tokens
    for name, kind, raw in (
        ("text_input", "BYTES", (1).to_bytes(4, "little") + b"x"),
        ("stream", "BOOL", b"\x01"),
        ("sampling_parameters", "BYTES", len(sampling).to_bytes(4, "little") + sampling),
    ):
        asked.inputs.add(name=name, datatype=kind, shape=[1])
        asked.raw_input_contents.append(raw)
    message = asked.SerializeToString()
    first: list[float] = []
    left = iter(range(requests))

    async def one(channel: Channel, number: int) -> None:
        await asyncio.sleep(spread * number / streams)
        for _ in left:
            began, waiting = time.monotonic(), True
            call = await channel.call("/inference.GRPCInferenceService/ModelStreamInfer", message, idle=60)
            while await call.read() is not None:
                if waiting:
                    first.append(time.monotonic() - began)
                    waiting = False

    async def run() -> None:
        channel = Channel(triton)
        await asyncio.gather(*(one(channel, number) for number in range(streams)))
        await channel.close()

    asyncio.run(run())
    return first


def run(streams: tuple[int, ...] = STREAMS, rounds: int = 3) -> list[Table]:
    """Run all loads, and return the tables."""
    found = []
    for name, together in (("saturated, a token a message", 1), ("saturated, four tokens a message", 4)):
        with run_gateway(0.0, together) as to:
            run_load(to, 8, TOKENS, 32)
            rows = [
                _all([run_load(to, count, TOKENS, max(2 * count, 100)) for _ in range(rounds)]) for count in streams
            ]
        found.append(_saturated(name, rows))
    paces = [pace for pace in PACED_LOADS if pace[0] in streams]
    found.append(_paced([_pace(*pace, rounds) for pace in paces], paces))
    with run_gateway() as to:
        run_load(to, 16, 1, 200, stream=False)
        loads = [[run_load(to, count, 1, max(1000, count), stream=False) for _ in range(rounds)] for count in streams]
        found.append(_requests([_all(rows) for rows in loads]))
    return found


def _all(rows: list[LoadResult]) -> LoadResult:
    """Merge the rounds of one load into one result."""
    flows = [row.timings for row in rows]
    whole = StreamTimings(
        seconds=sum(seen.seconds for seen in flows),
        first_token_seconds=[value for seen in flows for value in seen.first_token_seconds],
        token_delays=[value for seen in flows for value in seen.token_delays],
        errors=[fault for seen in flows for fault in seen.errors],
        max_open=min(seen.max_open for seen in flows),
    )
    return LoadResult(rows[0].streams, whole, sum(row.cpu for row in rows), max(row.megabytes for row in rows))


def _pace(count: int, every: float, tokens: int, rounds: int) -> tuple[LoadResult, list[float]]:
    """Run one paced load. Return its result, and the times to first token of the same load without the gateway."""
    requests, spread = count * 3, every * tokens if count > 1 else 0.0
    rows: list[LoadResult] = []
    base: list[float] = []
    with run_gateway(every) as to:
        run_load(to, 8, 4, 32)
        for number in range(rounds):
            for way in ("gateway", "direct")[:: -1 if number % 2 else 1]:
                if way == "gateway":
                    rows.append(run_load(to, count, tokens, requests, spread=spread))
                else:
                    base += first_tokens_over_grpc(to.triton, count, tokens, requests, spread)
    return _all(rows), base


_SHARES = {"p50": 0.5, "p99": 0.99}
_STREAMED = (
    Column("rate", "tokens/s"),
    Column("gateway CPU", "µs/token"),
    *(Column(f"first token {share}", "ms", 1) for share in _SHARES),
)
_REST = (
    *(Column(f"token on its way {share}", "ms", 1) for share in _SHARES),
    Column("most open"),
    Column("memory", "MB"),
    Column("faults"),
)


def _milliseconds(values: list[float]) -> list[float]:
    return [1000 * percentile(values, share) for share in _SHARES.values()]


def _cpu(row: LoadResult) -> float:
    """Return the CPU time of a token in microseconds."""
    return 1e6 * row.cpu / row.timings.tokens


def _cells(row: LoadResult) -> tuple[list[Value], list[Value]]:
    """Return the cells of the columns `_STREAMED` and `_REST`."""
    seen = row.timings
    return (
        [seen.tokens / seen.seconds, _cpu(row), *_milliseconds(seen.first_token_seconds)],
        [*_milliseconds(seen.token_delays), seen.max_open, row.megabytes, len(seen.errors)],
    )


def _open(row: LoadResult, name: str) -> list[Threshold]:
    if row.streams != 1024:
        return []
    return [
        Threshold(f"errors with 1,024 streams open, {name}", len(row.timings.errors), 0, "at most", digits=0),
        Threshold(f"streams open at once of 1,024, {name}", row.timings.max_open, 1000, digits=0),
    ]


def _saturated(name: str, rows: list[LoadResult]) -> Table:
    cells: list[list[Value]] = []
    bars: list[Threshold] = []
    for row in rows:
        streamed, rest = _cells(row)
        cells.append([row.streams, *streamed, *rest])
        bars += _open(row, name)
        if row.streams == 64:
            bars.append(Threshold(f"gateway CPU a token, 64 streams {name}", _cpu(row), 100, "at most", "µs", 0))
    plots = (
        Plot("streams", ("gateway CPU",), title=f"Gateway CPU, {name}", log_x=True),
        Plot("streams", ("rate",), title=f"Tokens of all streams, {name}", log_x=True),
    )
    return Table(
        f"Streams, {name}", (Column("streams"), *_STREAMED, *_REST), cells, plots=plots, thresholds=tuple(bars)
    )


def _paced(found: list[tuple[LoadResult, list[float]]], paces: list[tuple[int, float, int]]) -> Table:
    cells: list[list[Value]] = []
    bars: list[Threshold] = []
    for (row, base), (count, every, _) in zip(found, paces, strict=True):
        streamed, rest = _cells(row)
        pairs = zip(_milliseconds(row.timings.first_token_seconds), _milliseconds(base), strict=True)
        added = dict(zip(_SHARES, [through - straight for through, straight in pairs], strict=True))
        cells.append([count, 1000 * every, *streamed, *added.values(), *rest])
        bars += _open(row, "paced")
        if count == 1:
            name = f"gateway CPU a token, one stream, a token every {1000 * every:.0f} ms"
            bars.append(Threshold(name, _cpu(row), 220, "at most", "µs", 0))
        if count == 64:
            for share, most in (("p50", 2), ("p99", 10)):
                name = f"added time to the first token, {share} at 64 streams"
                bars.append(Threshold(name, added[share], most, "at most", "ms", 1))
    columns = (
        Column("streams"),
        Column("a token every", "ms"),
        *_STREAMED,
        *(Column(f"added {share}", "ms", 1) for share in _SHARES),
        *_REST,
    )
    plot = Plot("streams", ("added p50", "added p99"), title="Added time to the first token, paced", kind="bars")
    return Table("Streams, paced", columns, cells, plots=(plot,), thresholds=tuple(bars))


def _requests(rows: list[LoadResult]) -> Table:
    columns = (
        Column("at once"),
        Column("rate", "requests/s"),
        Column("gateway CPU", "ms/request", 2),
        Column("faults"),
    )
    cells = []
    for row in rows:
        answered = len(row.timings.first_token_seconds)
        cells.append((row.streams, answered / row.timings.seconds, 1000 * row.cpu / answered, len(row.timings.errors)))
    worst = max(cell[2] for cell in cells)
    bar = Threshold("gateway CPU a request without streaming", worst, 1.5, "at most", "ms", 2)
    return Table("Requests without streaming", columns, cells, thresholds=(bar,))
