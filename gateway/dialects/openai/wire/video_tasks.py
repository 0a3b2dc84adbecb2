"""Tasks that generate videos: their state as OpenAI's object `video`, their files, and requests that start from them.

https://platform.openai.com/docs/api-reference/videos/object. `fps` and `seed` are not OpenAI's.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypeVar

from fastapi import Request
from starlette.responses import Response

from gateway.dialects.openai.wire import video_inputs
from gateway.dialects.openai.wire.videos import CreateVideoRequest, VideoFields
from gateway.errors import InvalidRequest, NotReady, TaskNotFound
from gateway.files.file_store import FileStore
from gateway.http import delivery, stored_files
from gateway.media.loader import MediaLoader
from gateway.media.spool import SpoolFile
from gateway.media.videos import PREVIEW_TYPES, PreviewVariant
from gateway.model_card.image_limits import format_size
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.generate_video import GenerateVideo
from gateway.settings import Settings
from gateway.tasks.task import FINAL_STATES, Task, TaskState
from gateway.tasks.task_queue import TaskQueue

Variant: TypeAlias = Literal["video", "thumbnail", "spritesheet"]
Status: TypeAlias = Literal["queued", "in_progress", "completed", "failed"]

KINDS = frozenset({GenerateVideo.operation})
"""The operations of these tasks."""
_STATUSES: Mapping[TaskState, Status] = {
    "queued": "queued",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
_CANCELLED = {"code": "cancelled", "message": "The task was cancelled.", "param": None}
_MIN_POLL_MS, _MAX_POLL_MS = 500, 5000
_POLL_SHARE = 0.1
"""Part of a task's age after which a client should ask again."""
_INHERITED = ("size", "seconds", "fps")
"""Fields of a source that a request keeps unless it sets them."""
_INHERITED_BY_MODEL = ("negative_prompt", "steps", "guidance_scale", "quality")
"""Further ones, for the model of the source alone: another model may not take them, or work badly with them."""

Fields = TypeVar("Fields", bound=VideoFields)


async def find(request: Request, task_id: str, owner: str) -> Task:
    """Return a task of `owner` that generates a video. Raises `TaskNotFound` and `Overloaded`."""
    queue: TaskQueue = request.app.state.tasks
    task = await queue.get(task_id, owner)
    if task.kind not in KINDS:
        raise TaskNotFound(f"The task {task_id[:64]!r} generates no video.")
    return task


def render(task: Task, request: Request) -> dict[str, Any]:
    """Return a task as OpenAI's object `video`."""
    settings: Settings = request.app.state.settings
    asked = task.request
    facts = task.outputs[0].facts if task.outputs else {}
    finished = task.finished if task.state == "completed" else None
    error = None if task.error is None else {name: getattr(task.error, name) for name in ("code", "message", "param")}
    return {
        "id": task.id,
        "object": "video",
        "model": task.model,
        "status": _STATUSES[task.state],
        "progress": task.progress,
        "created_at": int(task.created),
        "completed_at": None if finished is None else int(finished),
        "expires_at": None if finished is None else int(finished + settings.files_retention),
        "prompt": asked.get("prompt"),
        "seconds": f"{asked.get('seconds') or 0:.6f}".rstrip("0").rstrip("."),
        "size": format_size((facts.get("width") or asked["width"], facts.get("height") or asked["height"])),
        "fps": facts.get("fps") or asked.get("fps"),
        "seed": facts.get("seed", asked.get("seed")),
        "remixed_from_video_id": asked.get("remixed_from"),
        "error": _CANCELLED if task.state == "cancelled" else error,
    }


def poll_headers(task: Task) -> dict[str, str]:
    """Return the header that tells OpenAI's clients when to ask again; none for a task that has ended."""
    if task.state in FINAL_STATES:
        return {}
    age_ms = 1000 * max(0.0, time.time() - task.created)
    return {"openai-poll-after-ms": str(int(min(_MAX_POLL_MS, max(_MIN_POLL_MS, _POLL_SHARE * age_ms))))}


async def content(request: Request, task: Task, variant: Variant) -> Response:
    """Return the file of a task, or a preview of it, which is made and stored at the first request.

    Raises `NotReady`, `FileNotFound` once the file has been removed, `UnsupportedOption` for a preview that this
    gateway cannot make, `ModelFailed`, `StorageFull` and `Overloaded`.
    """
    settings: Settings = request.app.state.settings
    file = _output_file(task)
    if variant != "video":
        file = await _preview(request, task, file, variant)
    expires_at = (task.finished or task.created) + settings.files_retention
    return await stored_files.respond(
        request,
        file,
        filename=f"{task.id}.{file.rpartition('.')[2]}",
        max_age=int(expires_at - time.time()),
    )


async def delete(request: Request, task: Task, owner: str) -> None:
    """Delete a task with its files. It is cancelled first if it has not ended. Raises as `find` does."""
    files: FileStore = request.app.state.files
    queue: TaskQueue = request.app.state.tasks
    for variant, content_type in PREVIEW_TYPES.items():
        if stored := await files.find(_preview_name(task, variant), content_type):
            await files.delete(stored)
    await queue.delete(task.id, owner)


async def read_source(request: Request, task: Task) -> SpoolFile:
    """Return the video of a task, to start another one from it. Raises as `content` does."""
    return await video_inputs.receive_stored(_output_file(task), request)


def inherit(body: Fields, source: Task) -> Fields:
    """Return `body` with what it leaves out: the size and the length of a completed task.

    A request that names no other model keeps the options of the source, too.

    Raises `NotReady`.
    """
    _output_file(source)
    found = {**source.request, **{name: value for name, value in source.outputs[0].facts.items() if value is not None}}
    # What the caller asked for may lie between two frames; the file has a whole number of them.
    if found.get("num_frames") and found.get("fps"):
        found["seconds"] = round(found["num_frames"] / found["fps"], 6)
    found["size"] = format_size((found["width"], found["height"]))
    names = _INHERITED if body.model not in (None, source.model) else _INHERITED + _INHERITED_BY_MODEL
    update = {name: found.get(name) for name in names if getattr(body, name) is None}
    return body.model_copy(update=update)


async def generation(body: CreateVideoRequest, model: Model, name: str, request: Request) -> GenerateVideo:
    """Return the operation of a request for a new video on `model`, which the caller calls `name`, with its reference.

    Raises as `video_inputs.add_reference` does.
    """
    operation = parse(body, model, name, request, has_reference=body.input_reference is not None)
    if body.input_reference is None:
        if body.strength is not None:
            raise InvalidRequest("'strength' requires an 'input_reference', which is missing.", param="strength")
        return operation
    return await video_inputs.add_reference(
        operation,
        body.input_reference,
        request,
        model,
        param="input_reference",
        seconds_given=body.seconds is not None,
    )


def parse(body: VideoFields, model: Model, name: str, request: Request, *, has_reference: bool = True) -> GenerateVideo:
    """Return the operation of a request without its references, checked as `video_inputs.check` does.

    Raises the `GatewayError` of the model.
    """
    catalog: Catalog = request.app.state.catalog
    # A client that uses an alias expects the sizes of that other model.
    operation = body.parse(name, model.card, nearest_size=catalog.is_alias(name))
    video_inputs.check(operation, model, has_reference=has_reference)
    return operation


async def remix(body: VideoFields, source: Task, model: Model, name: str, request: Request) -> GenerateVideo:
    """Return the operation that changes the video of `source`, on `model`, which the caller calls `name`.

    Raises as `content` does, and `UnsupportedOption` if the model cannot change the video.
    """
    operation = inherit(body, source).parse(name, model.card)
    video_inputs.check(operation, model, has_reference=True)
    spool = await read_source(request, source)
    operation = await video_inputs.add_clip(operation, spool, request, model, param="video", seconds_given=True)
    return replace(operation, remixed_from=source.id)


def _output_file(task: Task) -> str:
    """Return the id of the file of a completed task. Raises `NotReady` for another one."""
    if task.state in ("failed", "cancelled"):
        verb = "has failed" if task.state == "failed" else "was cancelled"
        raise NotReady(f"The video {task.id!r} does not exist: its task {verb}.")
    if task.state != "completed" or not task.outputs:
        raise NotReady(f"The video {task.id!r} is not ready yet: its status is '{_STATUSES[task.state]}'.")
    return task.outputs[0].file


async def _preview(request: Request, task: Task, file: str, variant: PreviewVariant) -> str:
    """Return the id of a stored preview. It expires with the video: without the video there is none."""
    files: FileStore = request.app.state.files
    media: MediaLoader = request.app.state.media
    await files.size(file)
    name, content_type = _preview_name(task, variant), PREVIEW_TYPES[variant]
    if stored := await files.find(name, content_type):
        return stored
    spool = await video_inputs.receive_stored(file, request)
    making = media.videos.preview(spool, variant, caller=request.state.trace.caller)
    return await files.put(await delivery.whole(request, making), content_type, name=name)


def _preview_name(task: Task, variant: PreviewVariant) -> str:
    return f"{task.id}/{variant}"
