"""What callers can do with tasks, on SQLite and on Postgres."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidRequest, ModelNotFound, RateLimited, StorageFull, TaskNotFound, UnsupportedOption
from gateway.operations.edit_image import EditImage
from gateway.tasks.task import TaskFailure
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OTHER_OWNER, OWNER, image_request, task_harness


async def test_a_task_is_done_and_its_pictures_are_kept(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        before = time.time()
        queued = await home.tasks.submit(image_request(n=2, seed=7, output_format="jpeg"), OWNER)
        assert queued.state in ("queued", "running") and queued.kind == "generate_image" and queued.model == "painter"
        assert before - 1 < queued.created < time.time() + 1 and queued.finished is None
        task = await home.wait_finished(queued.id)
        assert (task.state, task.progress, task.error) == ("completed", 100, None)
        assert [(drawn.index, drawn.facts["seed"], drawn.content_type) for drawn in task.outputs] == [
            (0, 7, "image/jpeg"),
            (1, 8, "image/jpeg"),
        ]
        for drawn in task.outputs:
            assert (await home.files.read(drawn.file))[:3] == b"\xff\xd8\xff"
        assert task.request["prompt"] == "a red square" and task.request["n"] == 2
        assert task.created <= task.started <= task.finished
        assert len(triton.calls) == 1


async def test_progress_is_seen_while_it_runs(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(model="slow"), OWNER)
        seen = await home.wait_until(task.id, lambda task: task.progress >= 10)
        assert seen.state == "running" and seen.started is not None
        further = await home.wait_until(task.id, lambda task: task.progress > seen.progress)
        assert further.progress < 100
        # Others who share the database see it, too.
        keeping = await home.tasks._get_runtime()
        async with asyncio.timeout(5):
            while not (told := await keeping.store.find(task.id, OWNER)).progress:
                await asyncio.sleep(0.1)
        assert told.state == "running"


async def test_cancelling_stops_the_model(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(model="slow"), OWNER)
        await home.wait_until(task.id, lambda task: task.state == "running" and task.progress > 0)
        cancelled = await home.tasks.cancel(task.id, OWNER)
        assert cancelled.state == "cancelled" and cancelled.outputs == ()
        await triton.cancelled_call("slow")
        await asyncio.sleep(0.5)
        assert (await home.tasks.get(task.id, OWNER)).state == "cancelled" and triton.active == 0
        assert (await home.tasks.cancel(task.id, OWNER)).state == "cancelled"


async def test_what_waits_is_cancelled_without_having_run(triton: FakeTriton, database: str, tmp_path: Path) -> None:
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


async def test_models_have_limits_of_their_own(triton: FakeTriton, database: str, tmp_path: Path) -> None:
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


async def test_each_key_has_so_many_open_tasks_and_no_more(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_per_key=3, tasks_concurrency=1) as home:
        made = [await home.tasks.submit(image_request(model="slow"), OWNER, str(i)) for i in range(3)]
        edit = EditImage(model="slow", prompt="x", images=(b"a picture",))
        for request in (image_request(), edit):
            with pytest.raises(RateLimited) as refused:
                await home.tasks.submit(request, OWNER)
            assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
            assert refused.value.message.startswith("3 tasks of this key") and refused.value.retry_after
        assert not list(tmp_path.glob("files/*")), "the pictures of what was refused are kept"
        # The same request again is no new task, and others have tasks of their own.
        assert (await home.tasks.submit(image_request(model="slow"), OWNER, "1")).id == made[1].id
        other = await home.tasks.submit(image_request(), OTHER_OWNER)
        assert (await home.wait_finished(other.id, OTHER_OWNER)).state == "completed"
        await home.tasks.cancel(made[2].id, OWNER)
        last = await home.tasks.submit(image_request(), OWNER)
        for task in made[:2]:
            await home.tasks.cancel(task.id, OWNER)
        assert (await home.wait_finished(last.id)).state == "completed"


async def test_first_in_first_out(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_concurrency=1) as home:
        prompts = [f"number {i}" for i in range(12)]
        for prompt in prompts:
            last = await home.tasks.submit(image_request(prompt), OWNER)
        await home.wait_finished(last.id)
        assert [call.prompt for call in triton.calls] == prompts


async def test_a_failure_is_told_as_it_would_have_been(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(model="broken"), OWNER)
        failed = await home.wait_finished(task.id)
        assert failed.state == "failed" and failed.finished is not None
        assert failed.error == TaskFailure(502, "model_failed", "The engine stopped.", None)
        assert (await home.tasks.cancel(task.id, OWNER)).state == "failed"


async def test_pictures_that_are_edited_travel_as_files(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        drawn = (await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)).outputs[0]
        source = await home.files.read(drawn.file)
        request = EditImage(model="painter", prompt="a blue one", images=(source,), mask=source, strength=0.5)
        task = await home.tasks.submit(request, OWNER)
        assert task.kind == "edit_image"
        assert [set(part) for part in (*task.request["images"], task.request["mask"])] == [{"file"}, {"file"}]
        assert (await home.wait_finished(task.id)).state == "completed"
        assert triton.calls[-1].tensors["image"] == [source] == triton.calls[-1].tensors["mask"]


async def test_tasks_are_their_owners_alone(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        task = await home.tasks.submit(image_request(), OWNER)
        for ask in (home.tasks.get, home.tasks.cancel):
            with pytest.raises(TaskNotFound):
                await ask(task.id, OTHER_OWNER)
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


async def test_the_newest_come_first_and_pages_follow(triton: FakeTriton, database: str, tmp_path: Path) -> None:
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


async def test_a_key_makes_one_task(triton: FakeTriton, database: str, tmp_path: Path) -> None:
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


async def test_what_no_wait_would_mend_is_refused_at_once(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        with pytest.raises(ModelNotFound):
            await home.tasks.submit(image_request(model="nobody"), OWNER)
        with pytest.raises(UnsupportedOption, match="7x7"):
            await home.tasks.submit(image_request(width=7, height=7), OWNER)
        assert await home.tasks.list(OWNER) == []


async def test_a_server_that_is_away_is_waited_for(triton: FakeTriton, database: str, tmp_path: Path) -> None:
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


async def test_one_that_stays_away_fails_the_task(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_patience=1.0) as home:
        await triton.stop()
        task = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        assert task.state == "failed" and task.error is not None
        assert (task.error.status, task.error.code) == (503, "overloaded")


async def test_a_store_that_is_full_is_waited_for(
    triton: FakeTriton, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        put, tries = home.files.put, 0

        async def full_at_first(*given: Any, **named: Any) -> str:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise StorageFull("The store of this service is full: the file was not kept.")
            return await put(*given, **named)

        monkeypatch.setattr(home.files, "put", full_at_first)
        task = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        assert (task.state, tries, len(triton.calls)) == ("completed", 3, 1)


async def test_stopping_leaves_what_runs_and_starting_takes_it_up(
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


async def test_tasks_that_ended_are_forgotten_in_time(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        done = await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        running = await home.tasks.submit(image_request(model="slow"), OWNER)
        records = (await home.tasks._get_runtime()).store
        assert await records.delete_older_than(3600) == 0
        await asyncio.sleep(1.1)
        assert await records.delete_older_than(1) == 1
        with pytest.raises(TaskNotFound):
            await home.tasks.get(done.id, OWNER)
        await home.tasks.cancel(running.id, OWNER)


async def test_the_loop_is_never_held(triton: FakeTriton, database: str, tmp_path: Path) -> None:
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
    assert longest < 0.5, f"the loop stood still for {longest:.2f} s"


async def test_what_was_drawn_to_the_end_is_not_drawn_again(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path, database) as home:
        done = await home.wait_finished((await home.tasks.submit(image_request(n=3), OWNER)).id)
        performer = (await home.tasks._get_runtime())._worker._executor
        before = len(triton.calls)
        again = await performer.execute(done.id, done.kind, dict(done.request), lambda fraction: None)
        assert again == list(done.outputs)
        assert len(triton.calls) == before
        await home.files.delete(done.outputs[1].file)
        again = await performer.execute(done.id, done.kind, dict(done.request), lambda fraction: None)
        assert again == list(done.outputs)
        assert len(triton.calls) == before + 1
