"""The routes that read tasks: fetch, lists, the queue, seeds, pictures, and cancelling."""

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gateway.dialects.midjourney import access, pictures, view
from gateway.dialects.midjourney.bodies import ListRequest
from gateway.dialects.midjourney.errors import MIDJOURNEY_DOCS, Code, Refusal, SubmitResult, answer
from gateway.dialects.midjourney.routing import LOOKUP_STATUSES, get, head, midjourney_route, picture_route, post
from gateway.dialects.midjourney.view import MidjourneyTask
from gateway.errors import InvalidRequest, RateLimited, TaskNotFound
from gateway.http import stored_files
from gateway.operations.keep_image import KeepImage
from gateway.settings import Settings
from gateway.tasks.task import Task, TaskState
from gateway.tasks.task_queue import TaskQueue

router = APIRouter(route_class=midjourney_route, tags=["Midjourney"])
picture_router = APIRouter(route_class=picture_route, tags=["Midjourney"])

_EXAMPLE: dict[str, Any] = {
    "id": "task_0644f1c2a7d9e8b4c6fa0d3e5b7c9a1f",
    "action": "IMAGINE",
    "status": "IN_PROGRESS",
    "prompt": "a red circle --ar 1:1",
    "promptEn": "a red circle --ar 1:1",
    "description": None,
    "state": None,
    "submitTime": 1763683200000,
    "startTime": 1763683200500,
    "finishTime": None,
    "progress": "63%",
    "imageUrl": None,
    "videoUrl": None,
    "videoUrls": None,
    "failReason": None,
    "customId": None,
    "botType": "MID_JOURNEY",
    "maskBase64": None,
    "buttons": [],
    "properties": {"finalPrompt": "a red circle --ar 1:1", "finalZhPrompt": None},
}
_TASK = MIDJOURNEY_DOCS.responses(MidjourneyTask, LOOKUP_STATUSES, description="The task.", example=_EXAMPLE)
_TASKS = MIDJOURNEY_DOCS.responses(MidjourneyTask, LOOKUP_STATUSES, description="The tasks.", example=_EXAMPLE)
_TASKS[200]["model"] = list[MidjourneyTask]
_TASKS[200]["content"]["application/json"]["example"] = [_EXAMPLE]
_RESULT = MIDJOURNEY_DOCS.responses(
    SubmitResult,
    LOOKUP_STATUSES,
    description="The result.",
    example={"code": 1, "description": "success", "result": "1234", "properties": {}},
)
_PICTURE = {
    200: {"description": "The picture.", "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
    403: {"description": "The signature does not match the URL, or the URL has expired."},
    404: {"description": "The task does not exist, or its picture was removed."},
}
_WAITING: tuple[TaskState, ...] = ("queued",)
Limit = Annotated[int, Query(ge=1, le=500, description="Most tasks to return.")]


def modal_key(id: str) -> str:
    """Return the idempotency key of the task that continues a task in the status MODAL."""
    return f"midjourney modal {id}"


async def find(request: Request, id: str) -> Task:
    """Return a task of the caller; for a modal that has been submitted, the task that continues it.

    Raises `TaskNotFound` and `Overloaded`.
    """
    queue: TaskQueue = request.app.state.tasks
    owner = access.task_owner(request)
    task = await queue.get(id, owner)
    if task.labels.get("modal"):
        return await queue.find_by_key(owner, modal_key(id)) or task
    return task


@get(router, "/task/{task_id}/fetch", summary="Retrieve a task", responses=_TASK)
async def fetch(task_id: str, request: Request) -> Response:
    """Return a task of the caller."""
    return _json(view.render(await find(request, task_id), request.app.state))


@post(router, "/task/list-by-condition", summary="Retrieve several tasks", responses=_TASKS)
async def list_by_condition(body: ListRequest, request: Request) -> Response:
    """Return the tasks with these ids, in their order. Ids of other callers and unknown ones are left out."""
    queue: TaskQueue = request.app.state.tasks
    ids = [str(id) for id in dict.fromkeys(body.ids)]
    owner = access.task_owner(request)
    found = {task.id: task for task in await queue.find_many(ids, owner)}
    shown = []
    for task in (found[id] for id in ids if id in found):
        followed = await queue.find_by_key(owner, modal_key(task.id)) if task.labels.get("modal") else None
        shown.append(view.render(followed or task, request.app.state))
    return _json(shown)


@post(router, "/task/list-by-ids", summary="Retrieve several tasks", responses=_TASKS)
async def list_by_ids(body: ListRequest, request: Request) -> Response:
    """Return the tasks with these ids, as `list-by-condition` does."""
    response: Response = await list_by_condition(body, request)
    return response


@get(router, "/task/list", summary="List tasks", responses=_TASKS)
async def list_tasks(request: Request, limit: Limit = 100) -> Response:
    """Return the latest tasks of the caller, the newest first."""
    queue: TaskQueue = request.app.state.tasks
    found = await queue.list(access.task_owner(request), limit=limit)
    followed = {task.labels.get("id") for task in found}
    shown = [task for task in found if not (task.labels.get("modal") and task.id in followed)]
    return _json([view.render(task, request.app.state) for task in shown])


@get(router, "/task/queue", summary="List tasks that wait", responses=_TASKS)
async def list_queue(request: Request, limit: Limit = 100) -> Response:
    """Return the tasks of the caller that have not begun, the oldest first."""
    queue: TaskQueue = request.app.state.tasks
    found = await queue.list(access.task_owner(request), limit=limit, states=_WAITING, oldest_first=True)
    waiting = [task for task in found if task.kind != KeepImage.operation]
    return _json([view.render(task, request.app.state) for task in waiting])


@get(router, "/task/{task_id}/image-seed", summary="Retrieve a seed", responses=_RESULT)
async def image_seed(task_id: str, request: Request) -> Response:
    """Return the seed of the first picture of a task as `result`."""
    task = await find(request, task_id)
    facts = task.outputs[0].facts if task.outputs else task.request
    if view.status(task) != "SUCCESS" or facts.get("seed") is None:
        raise Refusal(Code.VALIDATION_ERROR, f"The task {view.shown_id(task)} has no seed.")
    return answer(Code.SUCCESS, "success", str(facts["seed"]))


@post(router, "/task/{task_id}/cancel", summary="Cancel a task", responses=_RESULT)
async def cancel(task_id: str, request: Request) -> Response:
    """Cancel a task, also while a model works on it."""
    queue: TaskQueue = request.app.state.tasks
    task = await find(request, task_id)
    owner = access.task_owner(request)
    if task.labels.get("modal"):
        labels = {**task.labels, "modal": False, "cancelled": True, "id": task.id}
        hook = task.labels.get("webhook_url")
        try:
            await queue.submit(KeepImage(model=task.model), owner, modal_key(task.id), hook, labels=labels)
        except InvalidRequest:  # `submit/modal` came first
            raise Refusal(Code.VALIDATION_ERROR, f"The task {task.id} has been continued.") from None
        except RateLimited as error:
            raise Refusal(Code.QUEUE_REJECTED, error.message) from None
    elif view.status(task) not in ("SUBMITTED", "IN_PROGRESS"):
        raise Refusal(Code.VALIDATION_ERROR, f"The task {view.shown_id(task)} has ended: {view.status(task)}.")
    else:
        await queue.cancel(task.id, owner)
    return answer(Code.SUCCESS, "success", view.shown_id(task))


async def picture(task_id: str, request: Request) -> Response:
    """Return the picture or the grid of a task, to anyone with its signed URL, and to its owner."""
    queue: TaskQueue = request.app.state.tasks
    settings: Settings = request.app.state.settings
    task = await queue.get(task_id, None) if access.is_signed(request) else await find(request, task_id)
    if task.labels.get("view") not in ("grid", "single"):
        raise TaskNotFound(f"The task {task_id[:64]!r} has no picture.")
    file = await pictures.shown_file(request, task)
    until = (task.finished or task.created) + settings.files_retention
    name = f"{task.id}.{file.rpartition('.')[2]}"
    return await stored_files.respond(request, file, filename=name, max_age=int(until - time.time()))


head(picture_router, "/image/{task_id}")(picture)
get(picture_router, "/image/{task_id}", summary="Fetch a picture", responses=_PICTURE, response_class=Response)(picture)


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
