"""What the gateway alone costs: CPU time, added time and memory, in front of a scripted Triton.

The gateway runs on one core; the scripted model and the client, which are not measured, share the others. CPU time is
that of the gateway's processes, so neither of the two is in it. *Saturated*: tokens come as fast as they are taken.
*Paced*: each stream gets a token every 20 ms. The added time is what a client of the gateway waits for its first token
beyond what a client of the same model waits over gRPC, measured side by side.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from benchmarks.flows import Flow, body, flow
from benchmarks.scripted import MODEL, scripted
from benchmarks.serving import wait_models
from benchmarks.tables import Bar, Column, Plot, Table, Value
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

STREAMS = (1, 16, 64, 256, 1024)
TOKENS = 128
PACE = 0.02


@dataclass(frozen=True, slots=True)
class Front:
    """A gateway in front of a scripted model."""

    url: str
    triton: str
    process: psutil.Process

    def seconds(self) -> float:
        """CPU time of the gateway's processes so far."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def megabytes(self) -> float:
        """Resident memory of the gateway's processes."""
        processes = (self.process, *self.process.children(recursive=True))
        return sum(process.memory_info().rss for process in processes) / 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """One load."""

    streams: int
    flow: Flow
    cpu: float
    """Seconds of the gateway."""
    megabytes: float


@contextlib.contextmanager
def front(every: float = 0.0, together: int = 1) -> Iterator[Front]:
    """Start both, the gateway on the first core and the model on the others."""
    first, *others = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(scripted(every, together, set(others) or {first}))
        gateway = GatewayProcess("127.0.0.1", free_ports(1)[0], triton, folder / "gateway.log")
        gateway.start()
        stack.callback(gateway.stop)
        gateway.wait_live()
        wait_models(gateway)
        process = psutil.Process(gateway.child.pid)
        for each in (process, *process.children(recursive=True)):
            for thread in each.threads():
                os.sched_setaffinity(thread.id, {first})
        os.sched_setaffinity(0, set(others) or {first})
        stack.callback(os.sched_setaffinity, 0, {first, *others})
        yield Front(gateway.url, triton, process)


def load(to: Front, streams: int, tokens: int, requests: int, *, stream: bool = True) -> Row:
    """Run one load."""
    before = to.seconds()
    seen = asyncio.run(flow(to.url, body(MODEL, tokens, stream=stream), streams, requests))
    return Row(streams, seen, to.seconds() - before, to.megabytes())


def direct(triton: str, streams: int, tokens: int, requests: int) -> list[float]:
    """Seconds to the first token over gRPC, without the gateway."""
    asked = pb.ModelInferRequest(model_name=MODEL)
    sampling = b'{"max_tokens": %d}' % tokens
    for name, kind, raw in (
        ("text_input", "BYTES", (1).to_bytes(4, "little") + b"x"),
        ("stream", "BOOL", b"\x01"),
        ("sampling_parameters", "BYTES", len(sampling).to_bytes(4, "little") + sampling),
    ):
        asked.inputs.add(name=name, datatype=kind, shape=[1])
        asked.raw_input_contents.append(raw)
    first: list[float] = []
    left = iter(range(requests))

    async def one(stub: rpc.GRPCInferenceServiceStub) -> None:
        for _ in left:
            began, waiting = time.monotonic(), True
            call = stub.ModelStreamInfer()
            await call.write(asked)
            await call.done_writing()
            async for _message in call:
                if waiting:
                    first.append(time.monotonic() - began)
                    waiting = False

    async def run() -> None:
        async with grpc.aio.insecure_channel(triton, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = rpc.GRPCInferenceServiceStub(channel)
            await asyncio.gather(*(one(stub) for _ in range(streams)))

    asyncio.run(run())
    return first


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of them lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run(streams: tuple[int, ...] = STREAMS) -> list[Table]:
    """Measure everything, and return the tables."""
    found = []
    for name, every, together in (
        ("saturated, a token a message", 0.0, 1),
        ("saturated, four tokens a message", 0.0, 4),
        (f"paced, a token every {1000 * PACE:.0f} ms", PACE, 1),
    ):
        rows, added = [], {}
        with front(every, together) as to:
            load(to, 8, TOKENS, 32)
            for count in streams:
                requests = max(2 * count, 16 if every else 200)
                rows.append(load(to, count, TOKENS, requests))
                if every:
                    added[count] = direct(to.triton, count, TOKENS, requests)
        found.append(_table(name, rows, added, trickle=bool(every)))
    with front() as to:
        load(to, 16, 1, 200, stream=False)
        found.append(_requests([load(to, count, 1, 2000, stream=False) for count in (1, 16, 64)]))
    return found


def _table(name: str, rows: list[Row], added: dict[int, list[float]], *, trickle: bool) -> Table:
    columns = (
        Column("streams"),
        Column("rate", "tokens/s"),
        Column("gateway CPU", "µs/token"),
        *(Column(f"first token {share}", "ms", 1) for share in ("p50", "p99")),
        *(Column(f"added {share}", "ms", 1) for share in ("p50", "p99")),
        *(Column(f"token on its way {share}", "ms", 1) for share in ("p50", "p99")),
        Column("memory", "MB"),
        Column("faults"),
    )
    cells: list[tuple[Value, ...]] = []
    bars: list[Bar] = []
    for row in rows:
        seen, base = row.flow, added.get(row.streams)
        first = [1000 * percentile(seen.first, share) for share in (0.5, 0.99)]
        direct = [1000 * percentile(base, share) for share in (0.5, 0.99)] if base else []
        beyond = [one - other for one, other in zip(first, direct, strict=True)] if base else [None, None]
        travel = [1000 * percentile(seen.travel, share) for share in (0.5, 0.99)]
        cpu = 1e6 * row.cpu / seen.tokens
        cells.append(
            (row.streams, seen.tokens / seen.seconds, cpu, *first, *beyond, *travel, row.megabytes, len(seen.faults))
        )
        if row.streams == 64 and not trickle:
            bars.append(Bar(f"gateway CPU a token, 64 streams {name}", cpu, 100, "at most", "µs", 0))
        if row.streams == 1 and trickle:
            bars.append(Bar("gateway CPU a token, a trickle of one stream", cpu, 220, "at most", "µs", 0))
        if row.streams == 64 and base:
            for share, value, most in zip(("p50", "p99"), beyond, (2, 10), strict=True):
                assert value is not None
                bars.append(
                    Bar(f"added time to the first token, {share} at 64 streams", value, most, "at most", "ms", 1)
                )
        if row.streams == 1024:
            bars.append(Bar(f"errors with 1,024 streams open, {name}", len(seen.faults), 0, "at most", digits=0))
    plots = (
        Plot("streams", ("gateway CPU",), title=f"Gateway CPU, {name}", log_x=True),
        Plot(
            "streams",
            ("first token p50", "first token p99", "added p50", "added p99") if added else ("rate",),
            title=f"First token, {name}" if added else f"Tokens of all streams, {name}",
            log_x=True,
        ),
    )
    return Table(f"Streams, {name}", columns, cells, plots=plots, bars=tuple(bars))


def _requests(rows: list[Row]) -> Table:
    columns = (
        Column("at once"),
        Column("rate", "requests/s"),
        Column("gateway CPU", "ms/request", 2),
        Column("faults"),
    )
    cells = []
    for row in rows:
        answered = len(row.flow.first)
        cells.append((row.streams, answered / row.flow.seconds, 1000 * row.cpu / answered, len(row.flow.faults)))
    worst = max(cell[2] for cell in cells)
    bar = Bar("gateway CPU a request without streaming", worst, 1.5, "at most", "ms", 2)
    return Table("Requests without streaming", columns, cells, bars=(bar,))
