"""The watch of the event loop: its measurements, and its log lines about blocking work."""

import asyncio
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import structlog.testing
import uvloop

from gateway.observability import event_loop
from gateway.observability.cpu_time import CpuClocks, CpuTime
from gateway.observability.event_loop import EventLoopMonitor


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Observations:
    """Takes observations."""

    values: list[float] = field(default_factory=list)

    def observe(self, amount: float) -> None:
        self.values.append(amount)

    @property
    def most(self) -> float:
        return max(self.values, default=0.0)


@dataclass
class Request:
    request_id: str = "req_1"
    route: str = "/v1/things"
    body_bytes: int = 7


@dataclass
class Watched:
    watch: EventLoopMonitor
    lag: Observations = field(default_factory=Observations)
    held: Observations = field(default_factory=Observations)
    beats: list[float] = field(default_factory=list)


@asynccontextmanager
async def run_watch(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(event_loop, "_FIRST_HEARTBEAT_SECONDS", 0.05)
    lag, held = Observations(), Observations()
    watch = EventLoopMonitor(lag, held)
    watched_loop = Watched(watch, lag, held)
    watch._on_heartbeat = watched_loop.beats.append
    watch.start()
    try:
        yield watched_loop
    finally:
        watch.close()


async def serve_request(watch: EventLoopMonitor, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` as a request's task does."""

    async def task() -> None:
        watch.begin_request(Request())
        try:
            await work()
        finally:
            watch.end_request()

    await asyncio.create_task(task())


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_blocking_work_of_a_request_is_measured_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        await asyncio.sleep(0.1)
        compute(1.5)  # long enough for the watch to look in the meantime, also where it waits for a CPU

    with structlog.testing.capture_logs() as log:
        async with run_watch(monkeypatch) as watched_loop:
            await serve_request(watched_loop.watch, work)
            await asyncio.sleep(0.1)
    assert watched_loop.held.most == pytest.approx(1.5, abs=event_loop.HEARTBEAT_SECONDS + 0.05)
    assert watched_loop.lag.most >= watched_loop.held.most and len(watched_loop.lag.values) == len(
        watched_loop.held.values
    )
    reports = [line for line in log if line["event"] == "the event loop was held"]
    assert len(reports) == 1, "once for a hold"
    assert {key: reports[0][key] for key in ("request_id", "route", "body_bytes")} == {
        "request_id": "req_1",
        "route": "/v1/things",
        "body_bytes": 7,
    }
    assert reports[0]["where"][0].endswith(" compute") and reports[0]["where"][1].endswith(" work")
    assert reports[0]["computing"] == pytest.approx(watched_loop.held.most, abs=0.001)


async def test_a_block_that_begins_while_idle_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as log:
        async with run_watch(monkeypatch) as watched_loop:
            await asyncio.sleep(0.3)

            async def work() -> None:
                compute(0.4)

            await serve_request(watched_loop.watch, work)
            await asyncio.sleep(0.1)
    assert watched_loop.held.most >= 0.4 - event_loop.HEARTBEAT_SECONDS - 0.05
    (reports,) = [line for line in log if line["event"] == "the event loop was held"]
    assert reports["where"][0].endswith(" compute")


@pytest.mark.usefixtures("frozen_heap")
async def test_waiting_without_cpu_time_counts_as_lag_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        time.sleep(0.5)

    with structlog.testing.capture_logs() as log:
        async with run_watch(monkeypatch) as watched_loop:
            await serve_request(watched_loop.watch, work)
            await asyncio.sleep(0.1)
    assert watched_loop.lag.most >= 0.4
    assert watched_loop.held.most < 0.1
    assert [line["where"][0].split()[-1] for line in log if line["event"] == "the event loop was held"] == ["work"]


async def test_a_thread_that_keeps_the_gil_blocks_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_watch(monkeypatch) as watched_loop:

        async def work() -> None:
            await asyncio.sleep(0.1)
            thread = threading.Thread(target=lambda: sum(range(200_000_000)))  # C that does not let go
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.01)

        await serve_request(watched_loop.watch, work)
        await asyncio.sleep(0.1)  # `start` may return after the thread has ended: then no heartbeat has run since
    assert watched_loop.held.most > 0.1, "some seconds of one call without a stop"


@pytest.mark.usefixtures("frozen_heap")
async def test_threads_that_release_the_gil_do_not_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_watch(monkeypatch) as watched_loop:

        async def work() -> None:
            await asyncio.sleep(0.1)
            data = bytes(30_000_000)
            await asyncio.gather(*(asyncio.to_thread(zlib.compress, data, 9) for _ in range(3)))

        await serve_request(watched_loop.watch, work)
    assert watched_loop.held.most < 0.1


async def test_the_watch_ticks_more_often_during_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_watch(monkeypatch) as watched_loop:
        await asyncio.sleep(1.2)
        assert len(watched_loop.beats) <= 5

        async def work() -> None:
            await asyncio.sleep(0.6)

        watched_loop.beats.clear()
        await serve_request(watched_loop.watch, work)
        assert len(watched_loop.beats) >= 5
    assert watched_loop.watch._requests == {}


@pytest.mark.parametrize(
    ("spent", "late", "held"),
    [
        (CpuTime(0.0, 0.0, 1.0), 1.0, 0.0),  # others' processes had the processors
        (CpuTime(0.3, 0.0, 0.7), 1.0, 0.3),
        (CpuTime(1.5, 0.0, 0.0), 1.0, 1.0),  # some of it before it was late
        (CpuTime(0.0, 1.0, 0.0), 1.0, 1.0),  # another thread had the interpreter
        (CpuTime(0.0, 3.0, 1.0), 1.0, 0.0),  # other threads computed beside others' processes
        (CpuTime(0.0, 0.2, 0.0), 1.0, 0.2),
        (CpuTime(0.0, 0.0, 0.0), 1.0, 0.0),  # it was stopped, or waited for a disk
    ],
)
def test_lateness_counts_as_blocking_up_to_the_cpu_time(spent: CpuTime, late: float, held: float) -> None:
    assert spent.held_seconds(late) == pytest.approx(held)


def test_clocks_return_cpu_time_of_this_thread_and_others() -> None:
    clocks = CpuClocks()
    compute(0.1)
    other = threading.Thread(target=compute, args=(0.1,))
    other.start()
    other.join()
    spent = clocks.elapsed()
    assert spent.loop_thread >= 0.1 and spent.other_threads >= 0.09 and spent.run_queue >= 0
    again = clocks.elapsed()
    assert again.loop_thread < 0.05 and again.other_threads < 0.05
    clocks.close()
