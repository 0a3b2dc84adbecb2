"""Slots and memory that callers share fairly."""

import asyncio

import pytest

from gateway.fair_sharing import FairSemaphore, MemoryPool


async def taken(places: FairSemaphore, caller: str) -> bool:
    try:
        await places.acquire(caller, seconds=0.01)
    except TimeoutError:
        return False
    return True


async def test_a_caller_holds_at_most_as_many_slots_as_it_leaves():
    places = FairSemaphore(4)
    assert [await taken(places, "a") for _ in range(3)] == [True, True, False]
    assert [await taken(places, "b") for _ in range(2)] == [True, False]
    assert [await taken(places, "c") for _ in range(2)] == [True, False]
    assert not await taken(places, "d")
    places.release("a")
    assert await taken(places, "d")


async def test_a_single_slot_is_open_to_every_caller():
    places = FairSemaphore(1)
    assert await taken(places, "a")
    assert not await taken(places, "a") and not await taken(places, "b")
    places.release("a")
    assert await taken(places, "b")


async def test_callers_take_turns():
    """However many of one caller's wait, another's waits for one of them and no more."""
    places, order = FairSemaphore(1), []
    await places.acquire("many", seconds=1)

    async def work(caller):
        await places.acquire(caller, seconds=5)
        order.append(caller)
        await asyncio.sleep(0)
        places.release(caller)

    tasks = [asyncio.create_task(work("many")) for _ in range(6)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(work("few")), asyncio.create_task(work("one"))]
    await asyncio.sleep(0)
    places.release("many")
    await asyncio.gather(*tasks)
    assert sorted(order[:3]) == ["few", "many", "one"] and order[3:] == ["many"] * 5


async def test_a_cancelled_waiter_takes_no_slot():
    places = FairSemaphore(1)
    await places.acquire("a", seconds=1)
    leaving = asyncio.create_task(places.acquire("b", seconds=9))
    stays = asyncio.create_task(places.acquire("c", seconds=9))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    places.release("a")
    await stays
    places.release("c")
    # Cancelled in the very moment of its turn.
    await places.acquire("a", seconds=1)
    late = asyncio.create_task(places.acquire("b", seconds=9))
    await asyncio.sleep(0)
    places.release("a")
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert await taken(places, "c")
    places.release("c")
    assert not places._waiting and not places._held and places._free == 1


def test_memory_is_shared_between_callers():
    room = MemoryPool(100)
    assert room.acquire("a", 50) and not room.acquire("a", 1)
    assert room.acquire("b", 25) and not room.acquire("b", 1)
    room.release("a", 50)
    assert room.acquire("a", 37) and not room.acquire("a", 1)
    room.release("a", 37)
    room.release("b", 25)
    assert room._free == 100 and not room._held
