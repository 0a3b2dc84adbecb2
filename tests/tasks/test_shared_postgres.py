"""Several gateways share a Postgres: they share tasks and limits, and take over the tasks of dead gateways."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.tasks.gateway_processes import TaskGateway
from tests.tasks.postgres import Postgres


async def until(process: TaskGateway, id: str, *states: str, seconds: float = 40) -> dict:
    async with asyncio.timeout(seconds):
        while True:
            task = (await process.http.get(f"/tests/tasks/{id}")).raise_for_status().json()
            if task["state"] in states:
                return task
            await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
async def test_gateway_takes_over_the_tasks_of_a_killed_one(
    triton: FakeTriton, postgres: Postgres, tmp_path: Path
) -> None:
    triton.models["painter"] = ScriptedModel("painter", (DrawImages(10, pause=0.02),), is_image_model=True)
    triton.models["slow"] = ScriptedModel("slow", (DrawImages(100, pause=0.05),), is_image_model=True)
    database = postgres.url("several")
    shared = {"files": tmp_path / "files", "files_key": "shared between both gateways", "tasks_concurrency": 3}
    first = TaskGateway(tmp_path / "first", triton.url, database, **shared)
    second = TaskGateway(tmp_path / "second", triton.url, database, **shared)
    try:
        await first.start()
        await second.start()
        # Both run the tasks of either, within the limit of one, and none twice.
        ids = await asyncio.gather(*((first, second)[i % 2].submit(f"image {i}") for i in range(40)))
        max_active = 0
        for id in ids:
            while (await first.http.get(f"/tests/tasks/{id}")).json()["state"] != "completed":
                max_active = max(max_active, triton.active)
                await asyncio.sleep(0.02)
        assert Counter(call.prompt for call in triton.calls) == Counter({f"image {i}": 1 for i in range(40)})
        assert 1 < max_active <= 3
        # A task that runs in one gateway can be cancelled through the other.
        for stopped_by in (first, second):
            id = await second.submit(f"stop {id}", "slow")
            await until(first, id, "running")
            assert (await stopped_by.http.delete(f"/tests/tasks/{id}")).json()["state"] == "cancelled"
            async with asyncio.timeout(5):
                while triton.active:
                    await asyncio.sleep(0.05)
        # Each gateway runs some of these tasks; the killed one does not come back.
        left = [await second.submit(f"left {i}", "slow") for i in range(3)]
        for id in left:
            await until(second, id, "running")
        calls = len(triton.calls)
        first.kill()
        for id in left:
            assert (await until(second, id, "completed", "failed"))["state"] == "completed"
        calls_after_kill = Counter(call.prompt for call in triton.calls[calls:])
        ended = Counter(call.prompt for call in triton.calls if call.cancelled_at is None)
        assert all(ended[f"left {i}"] == 1 for i in range(3)) and all(times == 1 for times in calls_after_kill.values())
        assert await second.stop() in (0, -15)
    except BaseException:
        for process in (first, second):
            sys.stdout.write(process.log_tail())
        raise
    finally:
        await first.close()
        await second.close()
