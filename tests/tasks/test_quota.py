"""The limit of open tasks per key is exact, also for concurrent submissions to several gateways."""

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest

from gateway.errors import RateLimited
from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.tasks.gateway_processes import TaskGateway
from tests.tasks.harness import OTHER_OWNER, OWNER, image_request, task_harness
from tests.tasks.postgres import Postgres
from tests.wire.test_workers import run_workers

MAX_OPEN_TASKS = 40


async def test_limit_is_exact_for_concurrent_submissions(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_per_key=MAX_OPEN_TASKS) as home:
        await home.wait_finished(
            (await home.tasks.submit(image_request(), OTHER_OWNER)).id, OTHER_OWNER
        )  # creates the database
        results = await asyncio.gather(
            *(home.tasks.submit(image_request(f"{number}", model="slow"), OWNER) for number in range(150)),
            home.tasks.submit(image_request("another's", model="slow"), OTHER_OWNER),
            return_exceptions=True,
        )
        assert Counter(type(result).__name__ for result in results[:-1]) == {
            "Task": MAX_OPEN_TASKS,
            "RateLimited": 150 - MAX_OPEN_TASKS,
        }
        refusal = next(result for result in results if isinstance(result, RateLimited))
        assert (
            refusal.status == 429
            and refusal.retry_after
            and f"maximum of {MAX_OPEN_TASKS} open tasks" in refusal.message
        )
        assert not isinstance(results[-1], BaseException), "another key has a limit of its own"
        assert len(await home.tasks.list(OWNER, limit=1000)) == MAX_OPEN_TASKS
        # A task that ends makes room for one of many submissions.
        first = next(result for result in results if not isinstance(result, BaseException))
        await home.tasks.cancel(first.id, OWNER)
        results = await asyncio.gather(
            *(home.tasks.submit(image_request("more", model="slow"), OWNER) for _ in range(20)), return_exceptions=True
        )
        assert Counter(type(result).__name__ for result in results) == {"Task": 1, "RateLimited": 19}


async def test_repeated_request_does_not_count(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_per_key=2) as home:
        request = image_request(model="slow")
        same = await asyncio.gather(*(home.tasks.submit(request, OWNER, "one") for _ in range(10)))
        assert len({task.id for task in same}) == 1
        await home.tasks.submit(image_request(model="slow"), OWNER)
        assert (await home.tasks.submit(request, OWNER, "one")).id == same[0].id, "a repeated request needs no room"
        with pytest.raises(RateLimited):
            await home.tasks.submit(request, OWNER, "two")


@pytest.mark.timeout(180)
async def test_two_workers_share_the_limit(tmp_path: Path) -> None:
    painter = ScriptedModel("painter", (DrawImages(400, pause=0.1),), is_image_model=True)
    async with (
        run_workers(tmp_path, models=[painter], tasks_per_key=MAX_OPEN_TASKS) as running,
        running.each() as clients,
    ):
        body = {"model": "painter", "prompt": "a", "async": True}
        for http in clients:  # each opens the database
            async with asyncio.timeout(60):
                while (await http.post("/tritonic/v1/images/generations", json=body)).status_code == 503:
                    await asyncio.sleep(0.5)
        answers = await asyncio.gather(
            *(
                clients[number % 2].post("/tritonic/v1/images/generations", json=body, timeout=60)
                for number in range(150)
            )
        )
        statuses = Counter(answer.status_code for answer in answers)
        accepted = statuses.pop(200, 0) + statuses.pop(202, 0)
        assert accepted == MAX_OPEN_TASKS - 2 and set(statuses) == {429}
        refusal = next(answer for answer in answers if answer.status_code == 429)
        assert re.search(rf"maximum of {MAX_OPEN_TASKS} open tasks", refusal.text) and "retry-after" in refusal.headers


@pytest.mark.timeout(180)
async def test_two_gateways_on_one_postgres_share_the_limit(
    triton: FakeTriton, postgres: Postgres, tmp_path: Path
) -> None:
    triton.models["slow"] = ScriptedModel("slow", (DrawImages(400, pause=0.1),), is_image_model=True)
    shared = {"files": tmp_path / "files", "files_key": "shared between both gateways", "tasks_per_key": MAX_OPEN_TASKS}
    both = [TaskGateway(tmp_path / name, triton.url, postgres.url("quota"), **shared) for name in ("first", "second")]
    try:
        for process in both:
            await process.start()
            await process.submit("opened", "slow")
        answers = await asyncio.gather(
            *(
                both[number % 2].http.post(
                    "/tests/tasks",
                    json={"model": "slow", "prompt": "a"},
                    headers={"idempotency-key": f"{number}"},
                    timeout=60,
                )
                for number in range(150)
            )
        )
        open_tasks = [task for task in await both[0].tasks() if task["state"] in ("queued", "running")]
        assert len(open_tasks) == MAX_OPEN_TASKS
        assert Counter(answer.status_code for answer in answers) == {200: MAX_OPEN_TASKS - 2, 429: 152 - MAX_OPEN_TASKS}
    finally:
        for process in both:
            await process.close()
