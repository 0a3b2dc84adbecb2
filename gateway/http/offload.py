"""Work on large requests in threads, which hold the interpreter for milliseconds at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from gateway.fair_sharing import FairSemaphore, MemoryReservation

Result = TypeVar("Result")

LARGE_BYTES = 512 * 1024
"""Size of a body above which work on it belongs in a thread. Up to it, the work takes the event loop some 5 ms."""

_NUM_THREADS = 2
"""Few, because they share one interpreter with the event loop, and each one delays it by a turn."""
_EXECUTOR = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="bodies")
_semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, FairSemaphore] = WeakKeyDictionary()


class OffloadContext(Protocol):
    """A request: the size of its body, whether work on it belongs in a thread, its caller, and its reserved memory."""

    body_bytes: int
    is_large: bool
    caller: str
    reservation: MemoryReservation | None


async def offload_if_large(request: OffloadContext, work: Callable[[], Result]) -> Result:
    """Return the result of `work`, which runs in a thread if the request is large."""
    return await offload(request.caller, work) if request.is_large else work()


async def offload(caller: str, work: Callable[[], Result]) -> Result:
    """Return the result of `work`, which runs in a thread. Each of its steps must release the interpreter soon.

    Threads are shared fairly: a caller has at most one, so that a caller with a thousand large requests delays another
    by one of them. Work that has begun goes on, and keeps its thread, when its caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    places = _semaphores.setdefault(loop, FairSemaphore(_NUM_THREADS))
    await places.acquire(caller)
    running = _EXECUTOR.submit(work)

    def done(_: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(places.release, caller)

    running.add_done_callback(done)
    return await asyncio.wrap_future(running)
