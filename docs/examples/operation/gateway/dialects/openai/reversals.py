"""POST /v1/reversals and GET /v1/reversals/{task_id}: texts in reverse, at once or as tasks."""

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.files.file_store import FileStore
from gateway.http import delivery
from gateway.http.api_keys import match_api_key
from gateway.http.openapi_responses import LOOKUP_FAILURES, STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.http.wire_model import WireModel
from gateway.models.catalog import Catalog
from gateway.operations.reverse import Reverse, gather
from gateway.settings import Settings
from gateway.tasks.task import Task, owner_id
from gateway.tasks.task_queue import TaskQueue

router = APIRouter(route_class=route_class(OPENAI_ERRORS), tags=["Reversals"])


class CreateReversalRequest(WireModel):
    """The body of a reversal. With `background`, the answer is a task."""

    model: str
    text: str
    background: bool = False


class Reversal(BaseModel):
    """The text in reverse."""

    text: str


class ReversalTask(BaseModel):
    """A task, with the URL of its text once it is completed."""

    id: str
    status: str
    progress: int
    url: str | None
    error: str | None


_EXAMPLE = {"id": "task_4f1c2a7d", "status": "running", "progress": 50, "url": None, "error": None}
_CREATE_RESPONSES = OPENAI_DOCS.responses(
    Reversal | ReversalTask, STORED_OUTPUT_FAILURES, description="The text, or the task.", example={"text": "two one"}
)
_TASK_RESPONSES = OPENAI_DOCS.responses(ReversalTask, LOOKUP_FAILURES, description="The task.", example=_EXAMPLE)


@router.post("/v1/reversals", summary="Reverse a text", responses=_CREATE_RESPONSES)
async def create_reversal(body: CreateReversalRequest, request: Request) -> Response:
    """Return the text in reverse, or the task that reverses it."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get(body.model, Reverse)
    operation = Reverse(model=model.name, text=body.text)
    if body.background:
        tasks: TaskQueue = request.app.state.tasks
        return _render_task(await tasks.submit(operation, _owner(request)), request)
    text = await delivery.whole(request, gather(catalog.run(model, operation, request.state.trace)))
    return Response(orjson.dumps({"text": text}), media_type="application/json")


@router.get("/v1/reversals/{task_id}", summary="Retrieve a task", responses=_TASK_RESPONSES)
async def retrieve_reversal(task_id: str, request: Request) -> Response:
    """Return a task that the same key created."""
    tasks: TaskQueue = request.app.state.tasks
    return _render_task(await tasks.get(task_id, _owner(request)), request)


def _owner(request: Request) -> str:
    settings: Settings = request.app.state.settings
    return owner_id(match_api_key(request, settings.api_keys) if settings.api_keys else None)


def _render_task(task: Task, request: Request) -> Response:
    files: FileStore = request.app.state.files
    answer = {
        "id": task.id,
        "status": task.state,
        "progress": task.progress,
        "url": files.url(task.outputs[0].file, str(request.base_url)) if task.outputs else None,
        "error": task.error.message if task.error else None,
    }
    return Response(orjson.dumps(answer), media_type="application/json")
