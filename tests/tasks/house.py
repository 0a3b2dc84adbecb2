"""What keeps tasks, without the HTTP around it: a catalog, files and tasks, in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.catalog import Catalog
from gateway.files.files import Files
from gateway.operations.generate_image import GenerateImage
from gateway.settings import Settings
from gateway.tasks.task import FINAL, Task, owner_of
from gateway.tasks.tasks import Tasks
from gateway.telemetry import Metrics
from tests.fakes.script import Draw, Fail, Model

OWNER = owner_of("sk-one")
OTHER = owner_of("sk-two")

PAINTERS = [
    Model("painter", (Draw(4, pause=0.01),), drawing=True),
    Model("slow", (Draw(200, pause=0.05),), drawing=True),
    Model("broken", (Fail("[engine_failed] The engine stopped."),), drawing=True),
]


def picture(prompt: str = "a red square", model: str = "painter", **options: Any) -> GenerateImage:
    return GenerateImage(model=model, prompt=prompt, **options)


@dataclass(frozen=True, slots=True)
class House:
    tasks: Tasks
    files: Files
    catalog: Catalog
    settings: Settings

    async def until(self, id: str, check: Callable[[Task], bool], owner: str = OWNER, seconds: float = 15.0) -> Task:
        """Look at a task until `check` is true of it."""
        task = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    task = await self.tasks.get(id, owner)
                    if check(task):
                        return task
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it stayed {task}") from None

    async def done(self, id: str, owner: str = OWNER, seconds: float = 15.0) -> Task:
        return await self.until(id, lambda task: task.state in FINAL, owner, seconds)


@contextlib.asynccontextmanager
async def house(triton_url: str, state: Path, tasks: str | None = None, **options: Any) -> AsyncIterator[House]:
    """Keep tasks in the database `tasks`, before this Triton."""
    settings = Settings(triton_urls=[triton_url], state=state, tasks=tasks, **options)
    catalog = Catalog([triton_url], interval=0.1, timeout=20)
    watching = asyncio.create_task(catalog.watch())
    files = Files(settings)
    kept = Tasks(settings, catalog, files, Metrics())
    kept.start()
    try:
        async with asyncio.timeout(5):
            while not catalog.models():
                await asyncio.sleep(0.01)
        yield House(kept, files, catalog, settings)
    finally:
        await kept.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await catalog.close()
