"""The task queue, on SQLite and on Postgres."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidRequest, ModelNotFound, RateLimited, StorageFull, TaskNotFound, UnsupportedOption
from gateway.operations.edit_image import EditImage
from gateway.tasks.task import TaskFailure
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OTHER_OWNER, OWNER, belongs_here, image_request, task_harness


async def test_task_completes_and_stores_its_images(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        before = time.time()
        queued = await home.tasks.submit(image_request(n=2, seed=7, output_format="jpeg"), OWNER)
        assert queued.state in ("queued", "running") and queued.kind == "generate_image" and queued.model == "painter"
        assert before - 1 < queued.created < time.time() + 1 and queued.finished is None
        task = await home.wait_finished(queued.id)
        assert (task.state, task.progress, task.error) == ("completed", 100, None)
        assert [(output.index, output.facts["seed"], output.content_type) for output in task.outputs] == [
            (0, 7, "image/jpeg"),
            (1, 8, "image/jpeg"),
        ]
        for output in task.outputs:
            assert (await home.files.read(output.file))[:3] == b"\xff\xd8\xff"
        assert task.request["prompt"] == "a red square" and task.request["n"] == 2
        assert task.started is not None and task.finished is not None
        assert task.created <= task.started <= task.finished
        assert len(triton.calls) == 1


async def test_progress_is_visible_while_a_task_runs(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(model="slow"), OWNER)
        seen = await home.wait_until(task.id, lambda task: task.progress >= 10)
        assert seen.state == "running" and seen.started is not None
        further = await home.wait_until(task.id, lambda task: task.progress > seen.progress)
        assert further.progress < 100
        # Other gateways that share the database see it as well.
        runtime = await home.tasks._get_runtime()
        async with asyncio.timeout(5):
            while not ((stored := await runtime.store.find(task.id, OWNER)) and stored.progress):
                await asyncio.sleep(0.1)
        assert stored.state == "running"


async def test_cancelling_a_task_stops_the_model(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(model="slow"), OWNER)
        await home.wait_until(task.id, lambda task: task.state == "running" and task.progress > 0)
        cancelled = await home.tasks.cancel(task.id, OWNER)
        assert cancelled.state == "cancelled" and cancelled.outputs == ()
        await triton.cancelled_call("slow")
        await asyncio.sleep(0.5)
        assert (await home.tasks.get(task.id, OWNER)).state == "cancelled" and triton.active == 0
        assert (await home.tasks.cancel(task.id, OWNER)).state == "cancelled"


async def test_queued_task_is_cancelled_without_running(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_concurrency=1) as home:
        first = await home.tasks.submit(image_request(model="slow"), OWNER)
        await home.wait_until(first.id, lambda task: task.state == "running")
        second = await home.tasks.submit(image_request(model="slow"), OWNER)
        await asyncio.sleep(0.6)
        assert (await home.tasks.get(second.id, OWNER)).state == "queued"
        assert (await home.tasks.cancel(second.id, OWNER)).state == "cancelled"
        await home.tasks.cancel(first.id, OWNER)
        await asyncio.sleep(0.8)
        assert len(triton.calls) == 1


async def test_concurrency_is_limited_per_model(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_concurrency=2) as home:
        slow = [await home.tasks.submit(image_request(model="slow"), OWNER) for _ in range(4)]
        for task in slow[:2]:
            await home.wait_until(task.id, lambda task: task.state == "running")
        other = await home.tasks.submit(image_request(), OWNER)
        assert (await home.wait_finished(other.id)).state == "completed"
        states = [(await home.tasks.get(task.id, OWNER)).state for task in slow]
        assert states == ["running", "running", "queued", "queued"]
        for task in reversed(slow):
            await home.tasks.cancel(task.id, OWNER)


async def test_open_tasks_are_limited_per_key(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_per_key=3, tasks_concurrency=1) as home:
        made = [await home.tasks.submit(image_request(model="slow"), OWNER, str(i)) for i in range(3)]
        edit = EditImage(model="slow", prompt="x", images=(b"an image",))
        for request in (image_request(), edit):
            with pytest.raises(RateLimited) as refused:
                await home.tasks.submit(request, OWNER)
            assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
            assert "maximum of 3 open tasks" in refused.value.message and refused.value.retry_after
        assert not list(tmp_path.glob("files/*")), "a refused task has stored its images"
        # A repeated request is no new task, and other owners have limits of their own.
        assert (await home.tasks.submit(image_request(model="slow"), OWNER, "1")).id == made[1].id
        other = await home.tasks.submit(image_request(), OTHER_OWNER)
        assert (await home.wait_finished(other.id, OTHER_OWNER)).state == "completed"
        await home.tasks.cancel(made[2].id, OWNER)
        last = await home.tasks.submit(image_request(), OWNER)
        for task in made[:2]:
            await home.tasks.cancel(task.id, OWNER)
        assert (await home.wait_finished(last.id)).state == "completed"


async def test_queue_is_first_in_first_out(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_concurrency=1) as home:
        prompts = [f"number {i}" for i in range(12)]
        for prompt in prompts:
            last = await home.tasks.submit(image_request(prompt), OWNER)
        await home.wait_finished(last.id)
        assert [call.prompt for call in triton.calls] == prompts


async def test_failed_task_reports_the_error_of_the_model(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(model="broken"), OWNER)
        failed = await home.wait_finished(task.id)
        assert failed.state == "failed" and failed.finished is not None
        assert failed.error == TaskFailure(502, "model_failed", "The engine stopped.", None)
        assert (await home.tasks.cancel(task.id, OWNER)).state == "failed"


async def test_input_images_are_stored_as_files(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        output = (await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)).outputs[0]
        source = await home.files.read(output.file)
        request = EditImage(model="painter", prompt="a blue one", images=(source,), mask=source, strength=0.5)
        task = await home.tasks.submit(request, OWNER)
        assert task.kind == "edit_image"
        assert [set(part) for part in (*task.request["images"], task.request["mask"])] == [{"file"}, {"file"}]
        assert (await home.wait_finished(task.id)).state == "completed"
        assert triton.calls[-1].tensors["image"] == [source] == triton.calls[-1].tensors["mask"]


async def test_tasks_are_visible_to_their_owner_only(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(), OWNER)
        for operation in (home.tasks.get, home.tasks.cancel):
            with pytest.raises(TaskNotFound):
                await operation(task.id, OTHER_OWNER)
        assert await home.tasks.list(OTHER_OWNER) == []
        assert (await home.wait_finished(task.id)).state == "completed"
        for unknown in (
            f"task_{'0' * 32}",
            "task_1",
            "",
            "../tasks",
            "task_" + "ü" * 32,
            "x" * 100_000,
            "task_\0" + "0" * 31,
        ):
            with pytest.raises(TaskNotFound) as refused:
                await home.tasks.get(unknown, OWNER)
            assert len(refused.value.message) < 200


async def test_list_is_newest_first_and_paginated(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        made = [(await home.tasks.submit(image_request(f"number {i}"), OWNER)).id for i in range(7)]
        await home.tasks.submit(image_request(), OTHER_OWNER)
        whole = [task.id for task in await home.tasks.list(OWNER)]
        assert sorted(whole) == sorted(made) and whole[0] == made[-1]
        pages: list[str] = []
        while page := await home.tasks.list(OWNER, limit=3, after=pages[-1] if pages else None):
            pages += [task.id for task in page]
        assert pages == whole
        for id in made:
            await home.wait_finished(id)
        assert {task.id for task in await home.tasks.list(OWNER, states={"completed"})} == set(made)
        assert await home.tasks.list(OWNER, states={"failed", "queued"}) == []


async def test_idempotency_key_creates_one_task(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        same = await asyncio.gather(*(home.tasks.submit(image_request(), OWNER, "once") for _ in range(8)))
        assert len({task.id for task in same}) == 1
        assert (await home.tasks.submit(image_request(), OTHER_OWNER, "once")).id != same[0].id
        await home.wait_finished(same[0].id)
        again = await home.tasks.submit(image_request(), OWNER, "once")
        assert again.id == same[0].id and again.state == "completed"
        with pytest.raises(InvalidRequest, match="another request"):
            await home.tasks.submit(image_request("something else"), OWNER, "once")
        for key in ("", "x" * 300):
            with pytest.raises(InvalidRequest):
                await home.tasks.submit(image_request(), OWNER, key)
        assert len([call for call in triton.calls if call.prompt == "a red square"]) <= 2


async def test_permanent_errors_are_raised_on_submission(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        with pytest.raises(ModelNotFound):
            await home.tasks.submit(image_request(model="nobody"), OWNER)
        with pytest.raises(UnsupportedOption, match="7x7"):
            await home.tasks.submit(image_request(width=7, height=7), OWNER)
        assert await home.tasks.list(OWNER) == []


async def test_task_waits_for_an_unavailable_server(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        running = await home.tasks.submit(image_request(model="slow", seed=1), OWNER)
        await home.wait_until(running.id, lambda task: task.progress > 0)
        await triton.stop()
        late = await home.tasks.submit(image_request(), OWNER)
        await asyncio.sleep(1.5)
        assert {task.state for task in await home.tasks.list(OWNER)} <= {"running", "queued"}
        await triton.start()
        done = await home.wait_finished(late.id)
        assert done.state == "completed" and done.outputs[0].facts["seed"] is not None
        await home.wait_until(running.id, lambda task: task.progress > 5)
        await home.tasks.cancel(running.id, OWNER)


async def test_task_fails_if_the_server_stays_unavailable(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_patience=1.0) as home:
        await triton.stop()
        task = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        assert task.state == "failed" and task.error is not None
        assert (task.error.status, task.error.code) == (503, "overloaded")


async def test_task_waits_for_a_full_file_store(
    triton: FakeTriton, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        put, tries = home.files.put, 0

        async def full_at_first(*args: Any, **options: Any) -> str:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise StorageFull("The file store is full: the file was not stored.")
            return await put(*args, **options)

        monkeypatch.setattr(home.files, "put", full_at_first)
        task = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        assert (task.state, tries, len(triton.calls)) == ("completed", 3, 1)


async def test_shutdown_keeps_running_tasks_and_restart_continues_them(
    triton: FakeTriton, database: str, tmp_path: Path
) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        quick = await home.tasks.submit(image_request(), OWNER)
        await home.wait_finished(quick.id)
        slow = await home.tasks.submit(image_request("wait for me", model="slow"), OWNER)
        await home.wait_until(slow.id, lambda task: task.state == "running")
        await home.tasks.submit(image_request("and for me", model="slow"), OWNER)
    assert triton.active == 0
    async with task_harness(triton.url, tmp_path, database) as home:
        assert (await home.tasks.get(quick.id, OWNER)).state == "completed"
        await home.wait_until(slow.id, lambda task: task.state == "running" and task.progress > 0)
        for task in await home.tasks.list(OWNER):
            await home.tasks.cancel(task.id, OWNER)
    assert len([call for call in triton.calls if call.model == "painter"]) == 1


async def test_ended_tasks_are_deleted_after_their_retention(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        done = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        running = await home.tasks.submit(image_request(model="slow"), OWNER)
        store = (await home.tasks._get_runtime()).store
        assert await store.delete_older_than(3600) == 0
        await asyncio.sleep(1.1)
        assert await store.delete_older_than(1) == 1
        with pytest.raises(TaskNotFound):
            await home.tasks.get(done.id, OWNER)
        await home.tasks.cancel(running.id, OWNER)


async def test_event_loop_is_never_blocked(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - began)

    async with task_harness(triton.url, tmp_path, database) as home:
        await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        ticking = asyncio.create_task(tick())
        ids = [
            task.id for task in await asyncio.gather(*(home.tasks.submit(image_request(), OWNER) for _ in range(30)))
        ]
        for id in ids:
            await home.wait_finished(id)
        ticking.cancel()
    assert longest < 0.5, f"the event loop was blocked for {longest:.2f} s"


async def test_stored_outputs_are_not_generated_again(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        done = await home.wait_finished((await home.tasks.submit(image_request(n=3), OWNER)).id)
        executor = (await home.tasks._get_runtime())._worker._executor
        before = len(triton.calls)
        again = await executor.execute(done.id, done.kind, dict(done.request), lambda fraction: None, belongs_here)
        assert again == list(done.outputs)
        assert len(triton.calls) == before
        await home.files.delete(done.outputs[1].file)
        again = await executor.execute(done.id, done.kind, dict(done.request), lambda fraction: None, belongs_here)
        assert again == list(done.outputs)
        assert len(triton.calls) == before + 1
