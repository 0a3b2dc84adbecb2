"""Where work on large requests is done: beside the event loop, which then waits milliseconds at a time for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_THREADS = ThreadPoolExecutor(2, thread_name_prefix="bodies")
"""Few: they share one interpreter with the loop, and each makes it wait a turn longer."""


async def apart(work: Callable[[], Result]) -> Result:
    """Return what `work` does in a thread. Each single thing that it does has to give the interpreter up soon.

    Who is cancelled meanwhile does not wait for it; it ends by itself.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
