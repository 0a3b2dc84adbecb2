"""GET and DELETE /{platform}/v1/images/{task_id}, GET /{platform}/v1/images: state and images of tasks.

Seed: the all-platform document, 获取图片任务详情接口. It defines neither the kinds nor the statuses of tasks: these
are those of OpenAI's videos, https://platform.openai.com/docs/api-reference/videos/object, and `cancelled`. It has no
routes to cancel or list tasks either; ours follow OpenAI's other APIs.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.pages import render_page
from gateway.dialects.platform import access
from gateway.dialects.platform.response_models import ImageTask, ImageTaskList, Status
from gateway.errors import InvalidRequest, TaskNotFound
from gateway.files.file_store import FileStore
from gateway.http.openapi_responses import LOOKUP_FAILURES, Responses
from gateway.http.routes import route_class
from gateway.operations.operation import TaskOperation
from gateway.operations.registry import OPERATIONS
from gateway.settings import Settings
from gateway.tasks.task import Task, TaskState, task_object
from gateway.tasks.task_queue import TaskQueue

router = APIRouter(route_class=route_class(OPENAI_ERRORS, authorize=access.authorize), tags=["Platforms"])

TASK_STATUSES: Mapping[TaskState, Status] = {
    "queued": "queued",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}

IMAGE_KINDS = frozenset(
    name for name, kind in OPERATIONS.items() if issubclass(kind, TaskOperation) and kind.task_object == "image"
)
"""Operations whose tasks these routes show."""

WebhookUrl = Annotated[
    str | None,
    Field(description="With `async`: URL that is called when the task has ended, in the format of Standard Webhooks."),
]
"""The field `webhook_url` of requests that can become tasks."""

AsyncQuery = Annotated[bool | None, Query(alias="async", description="The same as the field of this name.")]
"""The query parameter `async` of the same requests."""

PageLimit = Annotated[int, Query(ge=1, le=100, description="Length of the page.")]
After = Annotated[str | None, Query(description="`last_id` of the page before this one.")]
StatusFilter = Annotated[Status | None, Query(description="Only tasks in this state.")]
"""Parameters of routes that list tasks."""

NOT_FOUND_DESCRIPTION = (
    "The task does not exist, belongs to another API key or platform, or the platform does not exist."
)
_ID = "task_4f1c2a7d9e8b4c6fa0d3e5b7c9a1f2e4"


def example_task(kind: str, model: str) -> dict[str, Any]:
    """Return a completed task for the OpenAPI document; `kind` is its `object`."""
    return {"id": _ID, "object": kind, "model": model, "status": "completed", "created_at": 1763683200}


def task_responses(task: type[BaseModel], example: Mapping[str, Any]) -> Responses:
    """Return the `responses` of routes that retrieve or cancel a task."""
    documented = OPENAI_DOCS.responses(task, LOOKUP_FAILURES, description="The task.", example=example)
    documented[404]["description"] = NOT_FOUND_DESCRIPTION
    return documented


def task_list_responses(tasks: type[BaseModel], example: Mapping[str, Any]) -> Responses:
    """Return the `responses` of routes that list tasks. `example` is one task."""
    documented = OPENAI_DOCS.responses(
        tasks,
        LOOKUP_FAILURES,
        description="The tasks, the newest first.",
        example={"object": "list", "data": [example], "first_id": _ID, "last_id": _ID, "has_more": False},
    )
    documented[404]["description"] = NOT_FOUND_DESCRIPTION
    return documented


_EXAMPLE = example_task("image", "shapes")
_RESPONSES = task_responses(ImageTask, _EXAMPLE)
_LIST_RESPONSES = task_list_responses(ImageTaskList, _EXAMPLE)


def reject_webhook(webhook_url: str | None) -> None:
    """Raise `InvalidRequest` for a request that names a webhook but is no task."""
    if webhook_url is not None:
        raise InvalidRequest("'webhook_url' requires 'async': only tasks have webhooks.", param="webhook_url")


async def submit(request: Request, operation: TaskOperation, webhook_url: str | None = None) -> Response:
    """Queue `operation` as a task, and return the response with the task. Its end is sent to `webhook_url`.

    Requests with the same header `Idempotency-Key` share one task. Raises what `TaskQueue.submit` raises.
    """
    queue: TaskQueue = request.app.state.tasks
    key = request.headers.get("idempotency-key")
    task = await queue.submit(operation, access.task_owner(request), key, webhook_url)
    return respond(task)


def respond(task: Task, detail: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response with a task and, if it is asked for, its `detail`."""
    answer = {**render_task(task), **({} if detail is None else {"detail": detail})}
    return Response(orjson.dumps(answer), headers=headers, media_type="application/json")


async def find_task(request: Request, task_id: str, kinds: Collection[str]) -> Task:
    """Return a task of the caller whose operation is one of `kinds`. Raises `TaskNotFound` and `Overloaded`."""
    queue: TaskQueue = request.app.state.tasks
    task = await queue.get(task_id, access.task_owner(request))
    if task.kind not in kinds:
        raise TaskNotFound(f"The task {task_id[:64]!r} is of another kind: ask for it where it was created.")
    return task


async def cancel(request: Request, task_id: str, kinds: Collection[str]) -> Response:
    """Cancel a task that `find_task` finds, and return the response with it."""
    await find_task(request, task_id, kinds)
    queue: TaskQueue = request.app.state.tasks
    task = await queue.cancel(task_id, access.task_owner(request))
    return respond(task)


async def list_kinds(
    request: Request, kinds: Collection[str], *, limit: int, after: str | None, status: Status | None
) -> Response:
    """Return the response with a page of the caller's tasks whose operation is one of `kinds`, the newest first."""
    queue: TaskQueue = request.app.state.tasks
    states = [state for state, shown in TASK_STATUSES.items() if shown == status]
    owner = access.task_owner(request)
    found = await queue.list(owner, limit=limit + 1, after=after, states=states, kinds=kinds)
    answer = render_page([render_task(task) for task in found], limit)
    return Response(orjson.dumps(answer), media_type="application/json")


@router.get("/{platform}/v1/images/{task_id}", summary="Retrieve a task", responses=_RESPONSES)
async def retrieve_task(
    platform: str,
    task_id: str,
    request: Request,
    detail: Annotated[bool, Query(description="Return the details of the task too, with its images.")] = False,
) -> Response:
    """Return a task that the same key made at the same platform."""
    task = await find_task(request, task_id, IMAGE_KINDS)
    return respond(task, _render_detail(task, request) if detail else None)


@router.delete("/{platform}/v1/images/{task_id}", summary="Cancel a task", responses=_RESPONSES)
async def cancel_task(platform: str, task_id: str, request: Request) -> Response:
    """Cancel a task, also while a model works on it, and return the task. A task that has ended does not change."""
    return await cancel(request, task_id, IMAGE_KINDS)


@router.get("/{platform}/v1/images", summary="List tasks", responses=_LIST_RESPONSES)
async def list_tasks(
    platform: str,
    request: Request,
    limit: PageLimit = 20,
    after: After = None,
    status: StatusFilter = None,
) -> Response:
    """Return the tasks that the same key made at the same platform, the newest first."""
    return await list_kinds(request, IMAGE_KINDS, limit=limit, after=after, status=status)


def render_task(task: Task) -> dict[str, Any]:
    """Return a task without its details."""
    return {
        "id": task.id,
        "object": task_object(task.kind),
        "model": task.model,
        "status": TASK_STATUSES[task.state],
        "created_at": int(task.created),
    }


def _render_detail(task: Task, request: Request) -> dict[str, Any]:
    sizes = ("width", "height", "scale")
    shown = ("prompt", "negative_prompt", "n", *sizes, "steps", "guidance_scale", "seed", "output_format")
    urls = output_urls(task, request)
    return {
        **render_state(task),
        "request": {name: task.request[name] for name in shown if task.request.get(name) is not None},
        "data": [
            {"url": url, "seed": output.facts.get("seed")} for url, output in zip(urls, task.outputs, strict=True)
        ],
    }


def output_urls(task: Task, request: Request) -> list[str]:
    """Return the URL of each output."""
    settings: Settings = request.app.state.settings
    files: FileStore = request.app.state.files
    base = settings.public_url or str(request.base_url)
    return [files.url(output.file, base) for output in task.outputs]


def render_state(task: Task) -> dict[str, Any]:
    """Return the details that tasks of every kind have."""
    error = task.error
    return {
        "operation": task.kind,
        "progress": task.progress,
        "started_at": None if task.started is None else int(task.started),
        "completed_at": None if task.finished is None else int(task.finished),
        "error": None if error is None else {"code": error.code, "message": error.message, "param": error.param},
    }
