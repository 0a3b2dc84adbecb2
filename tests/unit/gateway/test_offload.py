"""Offloaded work: the event loop stays free, and callers take turns."""

import asyncio
import threading
import time
from functools import partial

import pytest

from gateway.http import offload as module
from gateway.http.offload import offload


async def test_offloaded_work_does_not_block_the_loop() -> None:
    released = threading.Event()
    work = asyncio.create_task(offload("a", lambda: released.wait(5)))
    await asyncio.sleep(0.01)
    assert not work.done()
    released.set()
    assert await work
    await asyncio.sleep(0)
    assert not module._semaphores[asyncio.get_running_loop()]._held


async def test_failures_are_passed_on() -> None:
    def fail() -> None:
        raise ValueError("wrong")

    for _ in range(5):
        with pytest.raises(ValueError, match="wrong"):
            await offload("a", fail)


async def test_one_caller_leaves_room_for_others() -> None:
    done: list[str] = []

    def work(name: str, seconds: float) -> None:
        time.sleep(seconds)
        done.append(name)

    tasks = [asyncio.create_task(offload("greedy", lambda: work("greedy", 0.02))) for _ in range(50)]
    await asyncio.sleep(0.01)
    began = time.perf_counter()
    await offload("honest", lambda: work("honest", 0.0))
    waited = time.perf_counter() - began
    assert done.count("greedy") <= 2 and waited < 30, (done, waited)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cancelled_caller_keeps_its_slot_until_its_work_ends() -> None:
    """Work that has begun continues and delays the caller's other work; work that has not begun never starts."""
    running: set[int] = set()
    most = 0

    def work(i: int) -> None:
        nonlocal most
        running.add(i)
        most = max(most, len(running))
        time.sleep(0.05)
        running.discard(i)

    for i in range(10):
        task = asyncio.create_task(offload("a", partial(work, i)))
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await offload("a", lambda: None)
    assert most == 1
    await asyncio.sleep(0.01)
    assert not module._semaphores[asyncio.get_running_loop()]._held
