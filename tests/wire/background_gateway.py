"""A gateway on a thread of its own, for clients that block: the official ones in other languages, and fuzzers."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import uvloop

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import run_gateway


@dataclass(slots=True)
class BackgroundGateway:
    """A gateway at `url`, before the scripted `triton`."""

    url: str
    triton: FakeTriton
    loop: asyncio.AbstractEventLoop

    def do(self, work: Coroutine[Any, Any, Any], seconds: float = 10.0) -> Any:
        """Await something where the scripted Triton lives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)


@contextlib.contextmanager
def run_in_background(models: Iterable[Any], **settings: Any) -> Iterator[BackgroundGateway]:
    """Run a scripted Triton of these models and a gateway before it."""
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
