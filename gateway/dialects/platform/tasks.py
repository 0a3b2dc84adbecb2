"""GET and DELETE /{platform}/v1/images/{task_id}, GET /{platform}/v1/images: state and images of tasks.

Seed: the all-platform document, 获取图片任务详情接口. It defines neither the kinds nor the statuses of tasks: these
are those of OpenAI's videos, https://platform.openai.com/docs/api-reference/videos/object, and `cancelled`. It has no
routes to cancel or list tasks either; ours follow OpenAI's other APIs.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.platform import access
from gateway.dialects.platform.response_models import ImageTask, ImageTaskList, Status
from gateway.files.file_store import FileStore
from gateway.http.openapi_responses import LOOKUP_FAILURES
from gateway.http.routes import route_class
from gateway.operations.generate_image import GenerateImage
from gateway.settings import Settings
from gateway.tasks.task import Task, TaskState
from gateway.tasks.task_queue import TaskQueue

router = APIRouter(route_class=route_class(OPENAI_ERRORS, authorize=access.authorize), tags=["Platforms"])

TASK_STATUSES: Mapping[TaskState, Status] = {
    "queued": "queued",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}

_ID = "task_4f1c2a7d9e8b4c6fa0d3e5b7c9a1f2e4"
_EXAMPLE = {
    "id": _ID,
    "object": "image",
    "model": "shapes",
    "status": "completed",
    "created_at": 1763683200,
}


_RESPONSES = OPENAI_DOCS.responses(ImageTask, LOOKUP_FAILURES, description="The task.", example=_EXAMPLE)
_LIST_RESPONSES = OPENAI_DOCS.responses(
    ImageTaskList,
    LOOKUP_FAILURES,
    description="The tasks, the newest first.",
    example={"object": "list", "data": [_EXAMPLE], "first_id": _ID, "last_id": _ID, "has_more": False},
)
for _documented in (_RESPONSES, _LIST_RESPONSES):
    _documented[404]["description"] = (
        "The task does not exist, belongs to another API key or platform, or the platform does not exist."
    )


async def submit(request: Request, operation: GenerateImage) -> Response:
    """Queue `operation` as a task, and return the response with the task.

    Requests with the same header `Idempotency-Key` share one task. Raises what `TaskQueue.submit` raises.
    """
    queue: TaskQueue = request.app.state.tasks
    task = await queue.submit(operation, access.task_owner(request), request.headers.get("idempotency-key"))
    return Response(orjson.dumps(_render_task(task)), media_type="application/json")


@router.get("/{platform}/v1/images/{task_id}", summary="Retrieve a task", responses=_RESPONSES)
async def retrieve_task(
    platform: str,
    task_id: str,
    request: Request,
    detail: Annotated[bool, Query(description="Return the details of the task too, with its images.")] = False,
) -> Response:
    """Return a task that the same key made at the same platform."""
    queue: TaskQueue = request.app.state.tasks
    task = await queue.get(task_id, access.task_owner(request))
    answer = {**_render_task(task), "detail": _render_detail(task, request)} if detail else _render_task(task)
    return Response(orjson.dumps(answer), media_type="application/json")


@router.delete("/{platform}/v1/images/{task_id}", summary="Cancel a task", responses=_RESPONSES)
async def cancel_task(platform: str, task_id: str, request: Request) -> Response:
    """Cancel a task, also while a model works on it, and return the task. A task that has ended does not change."""
    queue: TaskQueue = request.app.state.tasks
    task = await queue.cancel(task_id, access.task_owner(request))
    return Response(orjson.dumps(_render_task(task)), media_type="application/json")


@router.get("/{platform}/v1/images", summary="List tasks", responses=_LIST_RESPONSES)
async def list_tasks(
    platform: str,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100, description="Length of the page.")] = 20,
    after: Annotated[str | None, Query(description="`last_id` of the page before this one.")] = None,
    status: Annotated[Status | None, Query(description="Only tasks in this state.")] = None,
) -> Response:
    """Return the tasks that the same key made at the same platform, the newest first."""
    queue: TaskQueue = request.app.state.tasks
    states = [state for state, shown in TASK_STATUSES.items() if shown == status]
    found = await queue.list(access.task_owner(request), limit=limit + 1, after=after, states=states)
    listed = [_render_task(task) for task in found[:limit]]
    answer = {
        "object": "list",
        "data": listed,
        "first_id": listed[0]["id"] if listed else None,
        "last_id": listed[-1]["id"] if listed else None,
        "has_more": len(found) > limit,
    }
    return Response(orjson.dumps(answer), media_type="application/json")


def _render_task(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "object": "image",
        "model": task.model,
        "status": TASK_STATUSES[task.state],
        "created_at": int(task.created),
    }


def _render_detail(task: Task, request: Request) -> dict[str, Any]:
    settings: Settings = request.app.state.settings
    files: FileStore = request.app.state.files
    base = settings.public_url or str(request.base_url)
    error = task.error
    shown = ("prompt", "negative_prompt", "n", "width", "height", "steps", "guidance_scale", "seed", "output_format")
    return {
        "operation": task.kind,
        "progress": task.progress,
        "started_at": None if task.started is None else int(task.started),
        "completed_at": None if task.finished is None else int(task.finished),
        "request": {name: task.request[name] for name in shown if task.request.get(name) is not None},
        "data": [{"url": files.url(output.file, base), "seed": output.facts.get("seed")} for output in task.outputs],
        "error": None if error is None else {"code": error.code, "message": error.message, "param": error.param},
    }
