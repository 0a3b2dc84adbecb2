"""Several gateways share a Postgres: its tasks, its limits, and what one leaves when it is gone."""

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
async def test_one_does_what_another_left(triton: FakeTriton, postgres: Postgres, tmp_path: Path) -> None:
    triton.models["painter"] = ScriptedModel("painter", (DrawImages(10, pause=0.02),), is_image_model=True)
    triton.models["slow"] = ScriptedModel("slow", (DrawImages(100, pause=0.05),), is_image_model=True)
    database = postgres.url("several")
    shared = {"files": tmp_path / "files", "files_key": "shared between both gateways", "tasks_concurrency": 3}
    first = TaskGateway(tmp_path / "first", triton.url, database, **shared)
    second = TaskGateway(tmp_path / "second", triton.url, database, **shared)
    try:
        await first.start()
        await second.start()
        # Both work on what either was given, no more at a time than one alone would, and nothing twice.
        ids = await asyncio.gather(*((first, second)[i % 2].submit(f"picture {i}") for i in range(40)))
        most = 0
        for id in ids:
            while (await first.http.get(f"/tests/tasks/{id}")).json()["state"] != "completed":
                most = max(most, triton.active)
                await asyncio.sleep(0.02)
        assert Counter(call.prompt for call in triton.calls) == Counter({f"picture {i}": 1 for i in range(40)})
        assert 1 < most <= 3
        # What one is asked to stop stops at the other.
        for stopped_by in (first, second):
            id = await second.submit(f"stop {id}", "slow")
            await until(first, id, "running")
            assert (await stopped_by.http.delete(f"/tests/tasks/{id}")).json()["state"] == "cancelled"
            async with asyncio.timeout(5):
                while triton.active:
                    await asyncio.sleep(0.05)
        # Each holds some of these; the one that is killed never comes back.
        left = [await second.submit(f"left {i}", "slow") for i in range(3)]
        for id in left:
            await until(second, id, "running")
        calls = len(triton.calls)
        first.kill()
        for id in left:
            assert (await until(second, id, "completed", "failed"))["state"] == "completed"
        again = Counter(call.prompt for call in triton.calls[calls:])
        ended = Counter(call.prompt for call in triton.calls if call.cancelled_at is None)
        assert all(ended[f"left {i}"] == 1 for i in range(3)) and all(times == 1 for times in again.values())
        assert await second.stop() in (0, -15)
    except BaseException:
        for process in (first, second):
            sys.stdout.write(process.log_tail())
        raise
    finally:
        await first.close()
        await second.close()
