"""Slots and memory that callers share fairly."""

import asyncio

import pytest

from gateway.fair_sharing import FairSemaphore, MemoryPool


async def try_acquire(slots: FairSemaphore, caller: str) -> bool:
    try:
        await slots.acquire(caller, seconds=0.01)
    except TimeoutError:
        return False
    return True


async def test_a_caller_holds_at_most_as_many_slots_as_it_leaves():
    slots = FairSemaphore(4)
    assert [await try_acquire(slots, "a") for _ in range(3)] == [True, True, False]
    assert [await try_acquire(slots, "b") for _ in range(2)] == [True, False]
    assert [await try_acquire(slots, "c") for _ in range(2)] == [True, False]
    assert not await try_acquire(slots, "d")
    slots.release("a")
    assert await try_acquire(slots, "d")


async def test_a_single_slot_is_open_to_every_caller():
    slots = FairSemaphore(1)
    assert await try_acquire(slots, "a")
    assert not await try_acquire(slots, "a") and not await try_acquire(slots, "b")
    slots.release("a")
    assert await try_acquire(slots, "b")


async def test_callers_take_turns():
    """However many of one caller's wait, another's waits for one of them and no more."""
    slots, order = FairSemaphore(1), []
    await slots.acquire("many", seconds=1)

    async def work(caller):
        await slots.acquire(caller, seconds=5)
        order.append(caller)
        await asyncio.sleep(0)
        slots.release(caller)

    tasks = [asyncio.create_task(work("many")) for _ in range(6)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(work("few")), asyncio.create_task(work("one"))]
    await asyncio.sleep(0)
    slots.release("many")
    await asyncio.gather(*tasks)
    assert sorted(order[:3]) == ["few", "many", "one"] and order[3:] == ["many"] * 5


async def test_a_cancelled_waiter_takes_no_slot():
    slots = FairSemaphore(1)
    await slots.acquire("a", seconds=1)
    leaving = asyncio.create_task(slots.acquire("b", seconds=9))
    stays = asyncio.create_task(slots.acquire("c", seconds=9))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    slots.release("a")
    await stays
    slots.release("c")
    # Cancelled in the very moment of its turn.
    await slots.acquire("a", seconds=1)
    late = asyncio.create_task(slots.acquire("b", seconds=9))
    await asyncio.sleep(0)
    slots.release("a")
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert await try_acquire(slots, "c")
    slots.release("c")
    assert not slots._waiting and not slots._held and slots._free == 1


def test_memory_is_shared_between_callers():
    room = MemoryPool(100)
    assert room.acquire("a", 50) and not room.acquire("a", 1)
    assert room.acquire("b", 25) and not room.acquire("b", 1)
    room.release("a", 50)
    assert room.acquire("a", 37) and not room.acquire("a", 1)
    room.release("a", 37)
    room.release("b", 25)
    assert room._free == 100 and not room._held
