"""A database that is gone or silent for a while: callers are told at once to come back, and all heals by itself."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Overloaded, TaskNotFound
from tests.fakes.triton import FakeTriton
from tests.tasks.house import OWNER, House, house, picture
from tests.tasks.postgres import Postgres


async def refused(work: Awaitable[Any], seconds: float = 7.0) -> None:
    """It fails as it should, and soon."""
    began = time.monotonic()
    with pytest.raises(Overloaded) as error:
        await work
    assert error.value.status == 503 and error.value.retry_after is not None
    assert time.monotonic() - began < seconds


async def heals(home: House, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                task = await home.tasks.submit(picture("after"), OWNER)
                break
            except Overloaded:
                await asyncio.sleep(0.3)
    assert (await home.done(task.id, seconds=seconds)).state == "completed"


@pytest.mark.timeout(180)
async def test_gone_for_a_while(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    async with house(triton.url, tmp_path, postgres.url("gone")) as home:
        done = await home.done((await home.tasks.submit(picture(), OWNER)).id)
        running = await home.tasks.submit(picture("through it all", model="slow"), OWNER)
        await home.until(running.id, lambda task: task.progress > 0)
        postgres.stop()
        try:
            await refused(home.tasks.submit(picture(), OWNER))
            await refused(home.tasks.get(done.id, OWNER))
            await refused(home.tasks.list(OWNER))
            await refused(home.tasks.cancel(running.id, OWNER))
            await asyncio.gather(*(refused(home.tasks.get(done.id, OWNER)) for _ in range(100)))
            with pytest.raises(TaskNotFound):
                await home.tasks.get("nonsense", OWNER)
        finally:
            postgres.start()
        await heals(home)
        assert (await home.tasks.get(done.id, OWNER)).images == done.images
        # The model was never stopped: what ran goes on, once.
        further = await home.until(running.id, lambda task: task.progress >= 50, seconds=30)
        assert further.state in ("running", "completed")
        assert len([call for call in triton.calls if call.prompt == "through it all"]) == 1
        await home.tasks.cancel(running.id, OWNER)


@pytest.mark.timeout(180)
async def test_silent_for_a_while(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    async with house(triton.url, tmp_path, postgres.url("silent")) as home:
        done = await home.done((await home.tasks.submit(picture(), OWNER)).id)
        with postgres.frozen():
            await asyncio.gather(
                refused(home.tasks.submit(picture(), OWNER)),
                refused(home.tasks.list(OWNER)),
                *(refused(home.tasks.get(done.id, OWNER)) for _ in range(30)),
            )
        await heals(home)


@pytest.mark.timeout(180)
async def test_not_there_when_the_gateway_starts(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    postgres.stop()
    try:
        async with asyncio.timeout(60):
            async with house(triton.url, tmp_path, postgres.url("late")) as home:
                await refused(home.tasks.submit(picture(), OWNER), 12)
                await refused(home.tasks.list(OWNER), 12)
                postgres.start()
                await heals(home)
    finally:
        postgres.stop()
        postgres.start()


@pytest.mark.timeout(180)
async def test_the_gateway_stops_while_it_is_silent(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    async with house(triton.url, tmp_path, postgres.url("stopping")) as home:
        await home.done((await home.tasks.submit(picture(), OWNER)).id)
        running = await home.tasks.submit(picture(model="slow"), OWNER)
        await home.until(running.id, lambda task: task.progress > 0)
        with postgres.frozen():
            began = time.monotonic()
            await home.tasks.close()
            assert time.monotonic() - began < 12
    assert triton.active == 0
