"""Where work on large requests is done: beside the event loop, which then waits milliseconds at a time for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from gateway.fair_sharing import FairSemaphore, MemoryReservation

Result = TypeVar("Result")

LARGE_BYTES = 512 * 1024
"""Bytes from which on work on them belongs beside the loop: up to these it takes the loop some 5 ms."""

_NUM_THREADS = 2
"""Few: they share one interpreter with the loop, and each makes it wait a turn longer."""
_EXECUTOR = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="bodies")
_semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, FairSemaphore] = WeakKeyDictionary()


class OffloadContext(Protocol):
    """What is known of a request: its size, whether work on it belongs beside the loop, who asks, and what it holds."""

    body_bytes: int
    is_large: bool
    caller: str
    reservation: MemoryReservation | None


async def offload_if_large(request: OffloadContext, work: Callable[[], Result]) -> Result:
    """Return what `work` does for a request: beside the loop where the request is large, or else here."""
    return await offload(request.caller, work) if request.is_large else work()


async def offload(caller: str, work: Callable[[], Result]) -> Result:
    """Return what `work` does in a thread. Each single thing that it does has to give the interpreter up soon.

    Callers have their turns, and none has more than one thread: one with a thousand large requests makes another wait
    for one of them. Work that has begun goes on, and keeps its thread, where who waits for it is cancelled.
    """
    loop = asyncio.get_running_loop()
    places = _semaphores.setdefault(loop, FairSemaphore(_NUM_THREADS))
    await places.acquire(caller)
    running = _EXECUTOR.submit(work)

    def done(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(places.release, caller)

    running.add_done_callback(done)
    return await asyncio.wrap_future(running)
