"""A task queue without HTTP: catalog, file store and tasks in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.files.file_store import FileStore
from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Metrics
from gateway.operations.generate_image import GenerateImage
from gateway.settings import Settings
from gateway.tasks.task import FINAL_STATES, Task, owner_id
from gateway.tasks.task_queue import TaskQueue
from tests.fakes.scripted_model import DrawImages, Fail, ScriptedModel

OWNER = owner_id("sk-one")
OTHER_OWNER = owner_id("sk-two")

IMAGE_MODELS = [
    ScriptedModel("painter", (DrawImages(4, pause=0.01),), is_image_model=True),
    ScriptedModel("slow", (DrawImages(200, pause=0.05),), is_image_model=True),
    ScriptedModel("broken", (Fail("[engine_failed] The engine stopped."),), is_image_model=True),
]


def image_request(prompt: str = "a red square", model: str = "painter", **options: Any) -> GenerateImage:
    return GenerateImage(model=model, prompt=prompt, **options)


async def belongs_here() -> bool:
    """Return that no other gateway has taken the task over."""
    return True


@dataclass(frozen=True, slots=True)
class TaskHarness:
    tasks: TaskQueue
    files: FileStore
    catalog: Catalog
    settings: Settings
    metrics: Metrics

    async def wait_until(
        self, id: str, check: Callable[[Task], bool], owner: str = OWNER, seconds: float = 15.0
    ) -> Task:
        """Poll a task until `check` is true for it."""
        task = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    task = await self.tasks.get(id, owner)
                    if check(task):
                        return task
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"the task stayed {task}") from None

    async def wait_finished(self, id: str, owner: str = OWNER, seconds: float = 15.0) -> Task:
        return await self.wait_until(id, lambda task: task.state in FINAL_STATES, owner, seconds)


@contextlib.asynccontextmanager
async def task_harness(
    triton_url: str, state: Path, tasks: str | None = None, **options: Any
) -> AsyncIterator[TaskHarness]:
    """Run a task queue on the database `tasks` with this Triton."""
    database = SecretStr(tasks) if tasks else None
    settings = Settings(triton_urls=[triton_url], state=state, tasks=database, **options)
    catalog = Catalog([triton_url], interval=0.1, timeout=20)
    watch = asyncio.create_task(catalog.watch())
    files = FileStore(settings)
    metrics = Metrics()
    queue = TaskQueue(settings, catalog, files, metrics)
    queue.start()
    try:
        async with asyncio.timeout(5):
            while not catalog.models():
                await asyncio.sleep(0.01)
        yield TaskHarness(queue, files, catalog, settings, metrics)
    finally:
        await queue.close()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await catalog.close()
