"""Runs work on large requests in threads, so that it does not block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from gateway.fair_sharing import FairSemaphore, MemoryReservation

Result = TypeVar("Result")

LARGE_BYTES = 512 * 1024
"""Body size above which work runs in a thread. At this size, the work blocks the event loop for about 5 ms."""

_NUM_THREADS = 2
"""Few, because the threads share the interpreter lock with the event loop, and each of them delays it."""
_EXECUTOR = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="bodies")
_semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, FairSemaphore] = WeakKeyDictionary()


class OffloadContext(Protocol):
    """The attributes of a request that decide where its work runs.

    `is_large`: work on the request runs in a thread. `caller` is the id of its caller for fair sharing.
    """

    body_bytes: int
    is_large: bool
    caller: str
    reservation: MemoryReservation | None


async def offload_if_large(request: OffloadContext, work: Callable[[], Result]) -> Result:
    """Return the result of `work`, which runs in a thread if the request is large."""
    return await offload(request.caller, work) if request.is_large else work()


async def offload(caller: str, work: Callable[[], Result]) -> Result:
    """Run `work` in a thread and return its result. It must release the interpreter lock every few milliseconds.

    Threads are shared fairly: a caller has at most one, so that a caller with a thousand large requests delays another
    caller by one of them. Work that has started continues, and keeps its thread, when the awaiting task is cancelled.
    """
    loop = asyncio.get_running_loop()
    slots = _semaphores.setdefault(loop, FairSemaphore(_NUM_THREADS))
    await slots.acquire(caller)
    running = _EXECUTOR.submit(work)

    def done(_: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(slots.release, caller)

    running.add_done_callback(done)
    return await asyncio.wrap_future(running)
