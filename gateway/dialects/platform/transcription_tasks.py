"""GET and DELETE /{platform}/v1/audio/tasks/{task_id}, GET /{platform}/v1/audio/tasks: state and transcripts of tasks.

They are the tasks of transcriptions and translations. The routes follow those of image tasks.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.platform import access, tasks
from gateway.dialects.platform.response_models import TranscriptionTask, TranscriptionTaskList
from gateway.http.routes import route_class
from gateway.operations.transcribe import Transcribe
from gateway.tasks.task import Task

router = APIRouter(route_class=route_class(OPENAI_ERRORS, authorize=access.authorize), tags=["Platforms"])

_KINDS = frozenset({Transcribe.operation})
_PATH = "/{platform}/v1/audio/tasks"
_EXAMPLE = tasks.example_task("transcription", "whisper-base")
_SHOWN = ("task", "language", "prompt", "temperature", "timestamps")

_RESPONSES = tasks.task_responses(TranscriptionTask, _EXAMPLE)
_LIST_RESPONSES = tasks.task_list_responses(TranscriptionTaskList, _EXAMPLE)


@router.get(f"{_PATH}/{{task_id}}", summary="Retrieve a task", responses=_RESPONSES)
async def retrieve_transcription(
    platform: str,
    task_id: str,
    request: Request,
    detail: Annotated[bool, Query(description="Return the details of the task too, with its transcript.")] = False,
) -> Response:
    """Return a task that the same key made at the same platform."""
    task = await tasks.find_task(request, task_id, _KINDS)
    return tasks.respond(task, _render_detail(task, request) if detail else None)


@router.delete(f"{_PATH}/{{task_id}}", summary="Cancel a task", responses=_RESPONSES)
async def cancel_transcription(platform: str, task_id: str, request: Request) -> Response:
    """Cancel a task, also while a model works on it, and return the task. A task that has ended does not change."""
    return await tasks.cancel(request, task_id, _KINDS)


@router.get(_PATH, summary="List tasks", responses=_LIST_RESPONSES)
async def list_transcriptions(
    platform: str,
    request: Request,
    limit: tasks.PageLimit = 20,
    after: tasks.After = None,
    status: tasks.StatusFilter = None,
) -> Response:
    """Return the transcriptions and translations that the same key made at the same platform, the newest first."""
    return await tasks.list_kinds(request, _KINDS, limit=limit, after=after, status=status)


def _render_detail(task: Task, request: Request) -> dict[str, Any]:
    urls = tasks.output_urls(task, request)
    return {
        **tasks.render_state(task),
        "request": {
            **{name: task.request[name] for name in _SHOWN if task.request.get(name) is not None},
            "response_format": task.request.get("output_format"),
        },
        "data": [
            {"url": url, "content_type": output.content_type} for url, output in zip(urls, task.outputs, strict=True)
        ],
    }
