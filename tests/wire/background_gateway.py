"""Runs a gateway in a thread, for clients that block: official clients in other languages, and fuzzers."""

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import uvloop

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import run_gateway


@dataclass(slots=True)
class BackgroundGateway:
    """A gateway at `url` in front of the scripted `triton`. Both run on `loop`, in another thread."""

    url: str
    triton: FakeTriton
    loop: asyncio.AbstractEventLoop


@contextlib.contextmanager
def run_in_background(models: Iterable[Any], **settings: Any) -> Iterator[BackgroundGateway]:
    """Run a scripted Triton with `models` and a gateway in front of it until the block ends."""
    ready: Future[BackgroundGateway] = Future()
    stop: list[asyncio.Event] = []

    async def run() -> None:
        stop.append(asyncio.Event())
        triton = await FakeTriton(models).start()
        try:
            async with run_gateway(triton.url, **settings) as gateway:
                ready.set_result(BackgroundGateway(gateway.url, triton, asyncio.get_running_loop()))
                await stop[0].wait()
        finally:
            await triton.stop()

    def body() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=body, name="gateway", daemon=True)
    thread.start()
    running = ready.result(15)
    try:
        yield running
    finally:
        running.loop.call_soon_threadsafe(stop[0].set)
        thread.join(15)
        assert not thread.is_alive(), "the gateway did not stop"
