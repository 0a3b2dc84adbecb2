"""Pictures of requests and of tasks: loading, reading, and the grid of a task."""

import asyncio
from collections.abc import Sequence

from fastapi import Request

from gateway.dialects.midjourney import view
from gateway.dialects.midjourney.errors import refuse
from gateway.files.file_store import FileStore
from gateway.http import delivery
from gateway.http.media_references import MediaReferences
from gateway.media import encoded_image
from gateway.media.compositions import Compositions
from gateway.tasks.task import Task

_GRID_TYPE = "image/png"


async def load(request: Request, references: Sequence[str], param: str) -> list[bytes]:
    """Return the images of the field `param`: data URLs, base64, http(s) URLs, and URLs of this service.

    Raises `InvalidRequest`, `Overloaded`, and `ClientDisconnected`.
    """
    media = MediaReferences.of_request(request)
    found = [
        media.image(text, param=param if len(references) == 1 else f"{param}[{index}]", allow_base64=True)
        for index, text in enumerate(references)
    ]
    await media.load(found, param=param)
    images = [part.loaded.data for part in found if part.loaded is not None]
    media.count(sum(map(len, images)))
    return images


async def load_one(request: Request, reference: str | None, param: str) -> bytes:
    """Return the image of the field `param`. Raises as `load` does, and `Refusal` if the field is missing or empty."""
    if not reference:
        raise refuse(f"'{param}' must not be empty: send a picture as a data URL, base64 or URL.")
    return (await load(request, [reference], param))[0]


async def size_of(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels of an image that has been checked or that a model made."""
    return await asyncio.to_thread(encoded_image.image_size, data)


async def read(request: Request, task: Task, index: int = 1) -> bytes:
    """Return picture `index` of a task, from 1. Raises `Refusal`, `FileNotFound` and `Overloaded`."""
    files: FileStore = request.app.state.files
    file = file_of(task, index)
    if reservation := request.state.trace.reservation:
        reservation.acquire(await files.size(file))
    return await files.read(file)


def file_of(task: Task, index: int = 1) -> str:
    """Return the id of the file of picture `index`, from 1. Raises `Refusal` if the task has no such picture."""
    shown = view.status(task)
    if shown != "SUCCESS":
        raise refuse(f"The task {view.shown_id(task)} has no pictures: its status is {shown}.")
    if task.labels.get("view") not in ("grid", "single"):
        raise refuse(f"The task {view.shown_id(task)} has no pictures.")
    if not task.outputs and index == 1 and "source" in task.labels:
        file: str = task.labels["source"]
        return file
    if not 1 <= index <= len(task.outputs):
        raise refuse(f"The task {view.shown_id(task)} has {len(task.outputs)} pictures, no number {index}.")
    return task.outputs[index - 1].file


async def shown_file(request: Request, task: Task) -> str:
    """Return the id of the file that a task shows: its picture, or a grid, which is made at the first request.

    Raises as `read` does.
    """
    first = file_of(task)
    if len(task.outputs) < 2:
        return first
    files: FileStore = request.app.state.files
    name = f"{task.id}/grid"
    if stored := await files.find(name, _GRID_TYPE):
        return stored

    async def make() -> str:
        made_of = [await files.read(output.file) for output in task.outputs]
        compositions: Compositions = request.app.state.media.compositions
        grid = await compositions.grid(
            made_of, await size_of(made_of[0]), param="id", caller=request.state.trace.caller
        )
        return await files.put(grid, _GRID_TYPE, name=name)

    return await delivery.whole(request, make())
