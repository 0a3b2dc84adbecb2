"""Outages of the database: callers get a 503 soon, and everything recovers by itself."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Overloaded, TaskNotFound
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OWNER, TaskHarness, image_request, task_harness
from tests.tasks.postgres import Postgres


async def assert_overloaded(work: Awaitable[Any], seconds: float = 7.0) -> None:
    """Assert that `work` raises `Overloaded` with `retry_after` within `seconds`."""
    began = time.monotonic()
    with pytest.raises(Overloaded) as error:
        await work
    assert error.value.status == 503 and error.value.retry_after is not None
    assert time.monotonic() - began < seconds


async def assert_recovers(home: TaskHarness, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                task = await home.tasks.submit(image_request("after"), OWNER)
                break
            except Overloaded:
                await asyncio.sleep(0.3)
    assert (await home.wait_finished(task.id, seconds=seconds)).state == "completed"


@pytest.mark.timeout(180)
async def test_database_stopped_and_started(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, postgres.url("gone")) as home:
        done = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        running = await home.tasks.submit(image_request("through it all", model="slow"), OWNER)
        await home.wait_until(running.id, lambda task: task.progress > 0)
        postgres.stop()
        try:
            await assert_overloaded(home.tasks.submit(image_request(), OWNER))
            await assert_overloaded(home.tasks.get(done.id, OWNER))
            await assert_overloaded(home.tasks.list(OWNER))
            await assert_overloaded(home.tasks.cancel(running.id, OWNER))
            await asyncio.gather(*(assert_overloaded(home.tasks.get(done.id, OWNER)) for _ in range(100)))
            with pytest.raises(TaskNotFound):
                await home.tasks.get("nonsense", OWNER)
        finally:
            postgres.start()
        await assert_recovers(home)
        assert (await home.tasks.get(done.id, OWNER)).outputs == done.outputs
        # The model was never stopped: the running task continues, in one call.
        further = await home.wait_until(running.id, lambda task: task.progress >= 50, seconds=30)
        assert further.state in ("running", "completed")
        assert len([call for call in triton.calls if call.prompt == "through it all"]) == 1
        await home.tasks.cancel(running.id, OWNER)


@pytest.mark.timeout(180)
async def test_database_frozen_and_continued(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, postgres.url("silent")) as home:
        done = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        with postgres.frozen():
            await asyncio.gather(
                assert_overloaded(home.tasks.submit(image_request(), OWNER)),
                assert_overloaded(home.tasks.list(OWNER)),
                *(assert_overloaded(home.tasks.get(done.id, OWNER)) for _ in range(30)),
            )
        await assert_recovers(home)


@pytest.mark.timeout(180)
async def test_database_unavailable_when_the_gateway_starts(
    triton: FakeTriton, postgres: Postgres, tmp_path: Path
) -> None:
    postgres.stop()
    try:
        async with asyncio.timeout(60):
            async with task_harness(triton.url, tmp_path, postgres.url("late")) as home:
                await assert_overloaded(home.tasks.submit(image_request(), OWNER), 12)
                await assert_overloaded(home.tasks.list(OWNER), 12)
                postgres.start()
                await assert_recovers(home)
    finally:
        postgres.stop()
        postgres.start()


@pytest.mark.timeout(180)
async def test_gateway_stops_while_the_database_is_frozen(
    triton: FakeTriton, postgres: Postgres, tmp_path: Path
) -> None:
    async with task_harness(triton.url, tmp_path, postgres.url("stopping")) as home:
        await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        running = await home.tasks.submit(image_request(model="slow"), OWNER)
        await home.wait_until(running.id, lambda task: task.progress > 0)
        with postgres.frozen():
            began = time.monotonic()
            await home.tasks.close()
            assert time.monotonic() - began < 12
    assert triton.active == 0
