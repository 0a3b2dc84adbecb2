"""Tasks of videos in the queue: their stored frames, their deletion, and lists from the oldest on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.errors import FileNotFound, TaskNotFound
from gateway.fair_sharing import MemoryPool, MemoryReservation
from gateway.media.spool import SpoolAttachment, SpoolFile
from gateway.operations.generate_video import GenerateVideo
from gateway.tasks.request_json import deserialize, serialize
from tests.fakes.scripted_model import FilmVideo, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OTHER_OWNER, OWNER, task_harness

MODELS = [
    ScriptedModel("film", (FilmVideo(2),), is_video_model=True),
    ScriptedModel("film-slow", (FilmVideo(400, pause=0.05),), is_video_model=True),
]


@pytest_asyncio.fixture
async def filming() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(MODELS).start()
    yield fake
    await fake.stop()


def request(model: str = "film", prompt: str = "a red circle", **options: object) -> GenerateVideo:
    size = {"width": 64, "height": 64, "num_frames": 4, "fps": 8, "seconds": 0.5}
    return GenerateVideo(model=model, prompt=prompt, **{**size, **options})  # type: ignore[arg-type]


async def test_frames_on_disk_are_in_memory_when_the_task_runs(filming: FakeTriton, tmp_path: Path) -> None:
    async with task_harness(filming.url, tmp_path) as home:
        spool = SpoolFile(tmp_path, MemoryReservation(MemoryPool(1000), "caller"))
        await spool.write(b"frames")
        await spool.finish()
        stored = await serialize(request(frames=SpoolAttachment(spool), strength=0.5), OWNER, home.files)
        spool.close()
        assert await home.files.read(stored["frames"]["file"]) == b"frames" and stored["image"] is None
        asked = await deserialize("generate_video", stored, home.files)
        assert asked == request(frames=b"frames", strength=0.5)
        assert await serialize(asked, OWNER, home.files) == stored


async def test_a_deleted_task_is_gone_with_its_video(filming: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(filming.url, tmp_path, database) as home:
        done = await home.wait_finished((await home.tasks.submit(request(), OWNER, "a key")).id)
        assert done.state == "completed" and done.outputs[0].content_type == "video/mp4"
        with pytest.raises(TaskNotFound):
            await home.tasks.delete(done.id, OTHER_OWNER)
        await home.tasks.delete(done.id, OWNER)
        for missing in (home.tasks.get(done.id, OWNER), home.tasks.delete(done.id, OWNER)):
            with pytest.raises(TaskNotFound):
                await missing
        with pytest.raises(FileNotFound):
            await home.files.size(done.outputs[0].file)
        assert await home.tasks.list(OWNER) == []
        again = await home.tasks.submit(request(prompt="another"), OWNER, "a key")  # the key is free again
        assert (await home.wait_finished(again.id)).state == "completed"


async def test_a_deleted_task_stops_the_model(filming: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(filming.url, tmp_path, database) as home:
        task = await home.tasks.submit(request("film-slow"), OWNER)
        await home.wait_until(task.id, lambda task: task.state == "running" and task.progress > 0)
        await home.tasks.delete(task.id, OWNER)
        await filming.cancelled_call("film-slow")
        with pytest.raises(TaskNotFound):
            await home.tasks.get(task.id, OWNER)
        done = await home.wait_finished((await home.tasks.submit(request(), OWNER)).id)  # the queue goes on
        assert done.state == "completed"


async def test_lists_from_the_oldest_on(filming: FakeTriton, database: str, tmp_path: Path) -> None:
    async with task_harness(filming.url, tmp_path, database) as home:
        made = [(await home.tasks.submit(request(prompt=str(number)), OWNER)).id for number in range(7)]
        pages: list[str] = []
        while page := await home.tasks.list(OWNER, limit=3, after=pages[-1] if pages else None, oldest_first=True):
            pages += [task.id for task in page]
        assert pages == made
        assert [task.id for task in await home.tasks.list(OWNER, limit=3)] == made[:3:-1]
        assert await home.tasks.list(OWNER, kinds={"generate_image"}, oldest_first=True) == []
