"""The overhead of the gateway: CPU time, added latency and memory, measured in front of a scripted Triton.

The gateway runs on one core. The scripted model and the client, which are not measured, share the others. CPU time is
that of the gateway's processes alone. *Saturated*: the model sends tokens as fast as they are read. *Paced*: each
stream gets a token at a fixed interval, and the starts of the streams are spread evenly over the duration of one. The
added time is the time to first token through the gateway minus that of a gRPC client that calls the model directly. The
two take turns in one run. The rates are low enough that the scripted model and the client are not the bottleneck.
Values are over all rounds.
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
"""Number of streams, seconds between the tokens of a stream, and tokens of a stream. At most 3,200 tokens/s in all."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A running gateway in front of a scripted Triton."""

    url: str
    triton: str
    """`host:port` of the scripted Triton."""
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
    """Resident memory of the gateway."""


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
        for member in (process, *process.children(recursive=True)):
            for thread in member.threads():
                os.sched_setaffinity(thread.id, {first})
        os.sched_setaffinity(0, set(others) or {first})
        stack.callback(os.sched_setaffinity, 0, {first, *others})
        yield RunningGateway(gateway.url, triton, process)


def run_load(
    gateway: RunningGateway, streams: int, tokens: int, requests: int, *, stream: bool = True, spread: float = 0.0
) -> LoadResult:
    """Run one load and return its result."""
    before = gateway.seconds()
    body = chat_body(MODEL, tokens, stream=stream)
    timings = asyncio.run(run_streams(gateway.url, body, streams, requests, spread))
    return LoadResult(streams, timings, gateway.seconds() - before, gateway.megabytes())


def first_tokens_over_grpc(triton: str, streams: int, tokens: int, requests: int, spread: float = 0.0) -> list[float]:
    """Return the times to first token of direct calls with the gateway's own gRPC client, in seconds."""
    request = pb.ModelInferRequest(model_name=MODEL)
    sampling = b'{"max_tokens": %d}' % tokens
    for name, kind, raw in (
        ("text_input", "BYTES", (1).to_bytes(4, "little") + b"x"),
        ("stream", "BOOL", b"\x01"),
        ("sampling_parameters", "BYTES", len(sampling).to_bytes(4, "little") + sampling),
    ):
        request.inputs.add(name=name, datatype=kind, shape=[1])
        request.raw_input_contents.append(raw)
    message = request.SerializeToString()
    first_token_seconds: list[float] = []
    remaining = iter(range(requests))

    async def run_client(channel: Channel, number: int) -> None:
        await asyncio.sleep(spread * number / streams)
        for _ in remaining:
            began, is_first = time.monotonic(), True
            call = await channel.call("/inference.GRPCInferenceService/ModelStreamInfer", message, idle=60)
            while await call.read() is not None:
                if is_first:
                    first_token_seconds.append(time.monotonic() - began)
                    is_first = False

    async def run() -> None:
        channel = Channel(triton)
        await asyncio.gather(*(run_client(channel, number) for number in range(streams)))
        await channel.close()

    asyncio.run(run())
    return first_token_seconds


def run(streams: tuple[int, ...] = STREAMS, rounds: int = 3) -> list[Table]:
    """Run all loads, and return the tables."""
    tables = []
    for name, together in (("saturated, a token a message", 1), ("saturated, four tokens a message", 4)):
        with run_gateway(0.0, together) as gateway:
            run_load(gateway, 8, TOKENS, 32)
            results = [
                _merge([run_load(gateway, count, TOKENS, max(2 * count, 100)) for _ in range(rounds)])
                for count in streams
            ]
        tables.append(_saturated_table(name, results))
    loads = [load for load in PACED_LOADS if load[0] in streams]
    tables.append(_paced_table([_run_paced_load(*load, rounds) for load in loads], loads))
    with run_gateway() as gateway:
        run_load(gateway, 16, 1, 200, stream=False)
        results = [
            _merge([run_load(gateway, count, 1, max(1000, count), stream=False) for _ in range(rounds)])
            for count in streams
        ]
        tables.append(_requests_table(results))
    return tables


def _merge(rounds: list[LoadResult]) -> LoadResult:
    """Merge the rounds of one load into one result."""
    timings = [result.timings for result in rounds]
    merged = StreamTimings(
        seconds=sum(each.seconds for each in timings),
        first_token_seconds=[value for each in timings for value in each.first_token_seconds],
        token_delays=[value for each in timings for value in each.token_delays],
        errors=[error for each in timings for error in each.errors],
        max_open=min(each.max_open for each in timings),
    )
    cpu = sum(result.cpu for result in rounds)
    return LoadResult(rounds[0].streams, merged, cpu, max(result.megabytes for result in rounds))


def _run_paced_load(count: int, interval: float, tokens: int, rounds: int) -> tuple[LoadResult, list[float]]:
    """Run one paced load. Return its result, and the times to first token of direct calls in seconds."""
    requests, spread = count * 3, interval * tokens if count > 1 else 0.0
    results: list[LoadResult] = []
    direct: list[float] = []
    with run_gateway(interval) as gateway:
        run_load(gateway, 8, 4, 32)
        for number in range(rounds):
            for path in ("gateway", "direct")[:: -1 if number % 2 else 1]:
                if path == "gateway":
                    results.append(run_load(gateway, count, tokens, requests, spread=spread))
                else:
                    direct += first_tokens_over_grpc(gateway.triton, count, tokens, requests, spread)
    return _merge(results), direct


_SHARES = {"p50": 0.5, "p99": 0.99}
_THROUGHPUT_COLUMNS = (
    Column("rate", "tokens/s"),
    Column("gateway CPU", "µs/token"),
    *(Column(f"first token {share}", "ms", 1) for share in _SHARES),
)
_STREAM_COLUMNS = (
    *(Column(f"token delay {share}", "ms", 1) for share in _SHARES),
    Column("max open"),
    Column("memory", "MB"),
    Column("errors"),
)


def _milliseconds(values: list[float]) -> list[float]:
    """Return p50 and p99 of times in seconds, in milliseconds."""
    return [1000 * percentile(values, share) for share in _SHARES.values()]


def _cpu_per_token(result: LoadResult) -> float:
    """Return the CPU time of a token in microseconds."""
    return 1e6 * result.cpu / result.timings.tokens


def _cells(result: LoadResult) -> tuple[list[Value], list[Value]]:
    """Return the cells of the columns `_THROUGHPUT_COLUMNS` and `_STREAM_COLUMNS`."""
    timings = result.timings
    return (
        [timings.tokens / timings.seconds, _cpu_per_token(result), *_milliseconds(timings.first_token_seconds)],
        [*_milliseconds(timings.token_delays), timings.max_open, result.megabytes, len(timings.errors)],
    )


def _open_streams_thresholds(result: LoadResult, name: str) -> list[Threshold]:
    """Return the thresholds of a load with 1,024 streams, none for other loads."""
    if result.streams != 1024:
        return []
    return [
        Threshold(f"errors with 1,024 streams open, {name}", len(result.timings.errors), 0, "at most", digits=0),
        Threshold(f"streams open at once of 1,024, {name}", result.timings.max_open, 1000, digits=0),
    ]


def _saturated_table(name: str, results: list[LoadResult]) -> Table:
    rows: list[list[Value]] = []
    thresholds: list[Threshold] = []
    for result in results:
        throughput, streams = _cells(result)
        rows.append([result.streams, *throughput, *streams])
        thresholds += _open_streams_thresholds(result, name)
        if result.streams == 64:
            title = f"gateway CPU a token, 64 streams {name}"
            thresholds.append(Threshold(title, _cpu_per_token(result), 100, "at most", "µs", 0))
    plots = (
        Plot("streams", ("gateway CPU",), title=f"Gateway CPU, {name}", log_x=True),
        Plot("streams", ("rate",), title=f"Tokens of all streams, {name}", log_x=True),
    )
    columns = (Column("streams"), *_THROUGHPUT_COLUMNS, *_STREAM_COLUMNS)
    return Table(f"Streams, {name}", columns, rows, plots=plots, thresholds=tuple(thresholds))


def _paced_table(results: list[tuple[LoadResult, list[float]]], loads: list[tuple[int, float, int]]) -> Table:
    rows: list[list[Value]] = []
    thresholds: list[Threshold] = []
    for (result, direct), (count, interval, _) in zip(results, loads, strict=True):
        throughput, streams = _cells(result)
        pairs = zip(_milliseconds(result.timings.first_token_seconds), _milliseconds(direct), strict=True)
        added = dict(zip(_SHARES, [through_gateway - without for through_gateway, without in pairs], strict=True))
        rows.append([count, 1000 * interval, *throughput, *added.values(), *streams])
        thresholds += _open_streams_thresholds(result, "paced")
        if count == 1:
            name = f"gateway CPU a token, one stream, a token every {1000 * interval:.0f} ms"
            thresholds.append(Threshold(name, _cpu_per_token(result), 220, "at most", "µs", 0))
        if count == 64:
            for share, limit in (("p50", 2), ("p99", 10)):
                name = f"added time to the first token, {share} at 64 streams"
                thresholds.append(Threshold(name, added[share], limit, "at most", "ms", 1))
    columns = (
        Column("streams"),
        Column("token interval", "ms"),
        *_THROUGHPUT_COLUMNS,
        *(Column(f"added {share}", "ms", 1) for share in _SHARES),
        *_STREAM_COLUMNS,
    )
    plot = Plot("streams", ("added p50", "added p99"), title="Added time to the first token, paced", kind="bars")
    return Table("Streams, paced", columns, rows, plots=(plot,), thresholds=tuple(thresholds))


def _requests_table(results: list[LoadResult]) -> Table:
    columns = (
        Column("in flight"),
        Column("rate", "requests/s"),
        Column("gateway CPU", "ms/request", 2),
        Column("errors"),
    )
    rows = []
    for result in results:
        timings = result.timings
        answered = len(timings.first_token_seconds)
        rows.append((result.streams, answered / timings.seconds, 1000 * result.cpu / answered, len(timings.errors)))
    worst = max(cpu for _, _, cpu, _ in rows)
    threshold = Threshold("gateway CPU a request without streaming", worst, 1.5, "at most", "ms", 2)
    return Table("Requests without streaming", columns, rows, thresholds=(threshold,))
