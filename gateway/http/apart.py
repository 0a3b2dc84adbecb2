"""Where work on large requests is done: beside the event loop, which then waits milliseconds at a time for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")

_THREADS = ThreadPoolExecutor(2, thread_name_prefix="bodies")
"""Few: they share one interpreter with the loop, and each makes it wait a turn longer."""


class Asked(Protocol):
    """What is known of a request: the bytes of its body, whether work on it belongs beside the loop, and who asks."""

    size: int
    large: bool
    caller: str


@dataclass(slots=True, eq=False)
class _Line:
    """The work of one caller, of which one piece at a time is done or waits for a thread."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


_all_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Line]] = WeakKeyDictionary()


async def beside(request: Asked, work: Callable[[], Result]) -> Result:
    """Return what `work` does for a request: beside the loop where the request is large, or else here."""
    return await apart(request.caller, work) if request.large else work()


async def apart(caller: str, work: Callable[[], Result]) -> Result:
    """Return what `work` does in a thread. Each single thing that it does has to give the interpreter up soon.

    Callers have their turns: one with a thousand large requests makes another wait for one of them. Work that has
    begun goes on where who waits for it is cancelled.
    """
    loop = asyncio.get_running_loop()
    lines = _all_lines.setdefault(loop, {})
    line = lines.setdefault(caller, _Line())
    line.length += 1

    def left(release: bool = True) -> None:
        if release:
            line.lock.release()
        line.length -= 1
        if not line.length:
            del lines[caller]

    try:
        await line.lock.acquire()
    except BaseException:
        left(release=False)
        raise
    running = _THREADS.submit(work)

    def done(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(left)

    running.add_done_callback(done)
    return await asyncio.wrap_future(running)
