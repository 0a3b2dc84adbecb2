"""POST and GET /v1/videos, and the routes beneath: https://platform.openai.com/docs/api-reference/videos

Each video is a durable task (`gateway.tasks`).
"""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from gateway.dialects.openai import videos_responses as responses
from gateway.dialects.openai.response_models import SUCCESS
from gateway.dialects.openai.wire import video_inputs, video_tasks, videos
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.pages import render_page
from gateway.dialects.openai.wire.video_tasks import Variant
from gateway.dialects.openai.wire.videos import (
    CreateVideoRequest,
    EditVideoRequest,
    ExtendVideoRequest,
    RemixVideoRequest,
    VideoFields,
)
from gateway.errors import InvalidRequest
from gateway.http.api_keys import match_api_key
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.generate_video import GenerateVideo
from gateway.settings import Settings
from gateway.tasks.task import Task, owner_id
from gateway.tasks.task_queue import TaskQueue

router = APIRouter(route_class=route_class(OPENAI_ERRORS, recordings=True), tags=["Videos"])


class _VideoId(StringConvertor):
    """The id of a video in a path: any text but the names of other routes, which answer wrong methods by 405."""

    regex = "(?!(?:edits|extensions)(?:/|$))[^/]+"


register_url_convertor("video_id", _VideoId())


@router.post(
    "/v1/videos",
    summary="Generate a video",
    responses=responses.CREATE,
    openapi_extra=videos.form_request_body(CreateVideoRequest, "input_reference"),
)
async def create_video(body: CreateVideoRequest, request: Request) -> Response:
    """Queue a video of what `prompt` describes. With `input_reference`, it starts from a picture or changes a video."""
    model = _find_model(body.model, request)
    operation = await video_tasks.generation(body, model, body.model or model.name, request)
    return await _submit(request, operation, body)


@router.post(
    "/v1/videos/edits",
    summary="Edit a video",
    responses=responses.CREATE,
    openapi_extra=videos.form_request_body(EditVideoRequest, "video"),
)
async def create_video_edit(body: EditVideoRequest, request: Request) -> Response:
    """Queue a video that changes another one by `prompt`: one of this service, by its id, or a file."""
    if (source := await _find_source(body, request)) is not None:
        return await _remix(body, source, request)
    model, operation = _parse(body, request)
    spool = await video_inputs.receive(body.video, request, "video")
    operation = await video_inputs.add_clip(
        operation, spool, request, model, param="video", seconds_given=body.seconds is not None
    )
    return await _submit(request, operation, body)


@router.post(
    "/v1/videos/extensions",
    summary="Continue a video",
    responses=responses.CREATE,
    openapi_extra=videos.form_request_body(ExtendVideoRequest, "video"),
)
async def create_video_extension(body: ExtendVideoRequest, request: Request) -> Response:
    """Queue a video of `seconds` that begins with the last frame of another one."""
    source = await _find_source(body, request)
    if source is not None:
        body = video_tasks.inherit(body, source)
    model, operation = _parse(body, request, source)
    spool = (
        await video_inputs.receive(body.video, request, "video")
        if source is None
        else await video_tasks.read_source(request, source)
    )
    operation = await video_inputs.add_last_frame(operation, spool, request, model, param="video")
    return await _submit(request, operation, body)


@router.post(
    "/v1/videos/{video_id:video_id}/remix",
    summary="Remix a video",
    responses=responses.CREATE,
    openapi_extra=videos.form_request_body(RemixVideoRequest),
)
async def remix_video(video_id: str, body: RemixVideoRequest, request: Request) -> Response:
    """Queue a video that changes a completed one of the same key by a new `prompt`."""
    return await _remix(body, await video_tasks.find(request, video_id, _owner(request)), request)


@router.get("/v1/videos", summary="List videos", responses=responses.LIST)
async def list_videos(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100, description="Length of the page.")] = 20,
    after: Annotated[str | None, Query(description="`last_id` of the page before this one.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By the time of creation.")] = "desc",
) -> Response:
    """Return the videos of the same key, in the order of their creation."""
    queue: TaskQueue = request.app.state.tasks
    found = await queue.list(
        _owner(request), limit=limit + 1, after=after, kinds=video_tasks.KINDS, oldest_first=order == "asc"
    )
    return _json({**render_page([video_tasks.render(task, request) for task in found], limit), **SUCCESS})


@router.get("/v1/videos/{video_id:video_id}", summary="Retrieve a video", responses=responses.RETRIEVE)
async def retrieve_video(video_id: str, request: Request) -> Response:
    """Return the state of a video of the same key."""
    return _answer(await video_tasks.find(request, video_id, _owner(request)), request)


@router.delete("/v1/videos/{video_id:video_id}", summary="Delete a video", responses=responses.DELETE)
async def delete_video(video_id: str, request: Request) -> Response:
    """Delete a video with its files. One that is queued or in progress is cancelled first."""
    owner = _owner(request)
    await video_tasks.delete(request, await video_tasks.find(request, video_id, owner), owner)
    return _json({"id": video_id, "object": "video.deleted", "deleted": True, **SUCCESS})


@router.head("/v1/videos/{video_id:video_id}/content", include_in_schema=False)
@router.get("/v1/videos/{video_id:video_id}/content", summary="Download a video", responses=responses.CONTENT)
async def download_video(
    video_id: str,
    request: Request,
    variant: Annotated[Variant, Query(description="The MP4 file, or a preview of it.")] = "video",
) -> Response:
    """Return the file of a completed video, its first frame (WebP), or a sheet with some of its frames (JPEG)."""
    return await video_tasks.content(request, await video_tasks.find(request, video_id, _owner(request)), variant)


def _owner(request: Request) -> str:
    """Return the owner of the tasks of this request."""
    settings: Settings = request.app.state.settings
    return owner_id(match_api_key(request, settings.api_keys) if settings.api_keys else None)


def _find_model(name: str | None, request: Request) -> Model:
    """Return the model `name`, or the first by name that generates videos. Raises as the catalog does."""
    catalog: Catalog = request.app.state.catalog
    return catalog.get_or_first(name, GenerateVideo, "No model generates videos.")


def _parse(body: VideoFields, request: Request, source: Task | None = None) -> tuple[Model, GenerateVideo]:
    """Return the model and the operation of a request, checked and without its references.

    Without a `model`, the request asks for that of `source`.
    """
    name = body.model or (source.model if source else None)
    model = _find_model(name, request)
    return model, video_tasks.parse(body, model, name or model.name, request)


async def _find_source(body: EditVideoRequest, request: Request) -> Task | None:
    """Return the task that `video` names by its id; None for a file. Raises `TaskNotFound` and `InvalidRequest`."""
    if not isinstance(body.video, dict):
        return None
    if isinstance(video_id := body.video.get("id"), str):
        return await video_tasks.find(request, video_id, _owner(request))
    if "image_url" in body.video or "file_id" in body.video:
        return None
    raise InvalidRequest("'video' must be a file or an object with the 'id' of a video.", param="video.id")


async def _remix(body: VideoFields, source: Task, request: Request) -> Response:
    name = body.model or source.model
    operation = await video_tasks.remix(body, source, _find_model(name, request), name, request)
    return await _submit(request, operation, body)


async def _submit(request: Request, operation: GenerateVideo, body: VideoFields) -> Response:
    """Queue `operation`. Requests with the same header `Idempotency-Key` share one task."""
    queue: TaskQueue = request.app.state.tasks
    key = request.headers.get("idempotency-key")
    task = await queue.submit(operation, _owner(request), key, body.webhook_url)
    return _answer(task, request)


def _answer(task: Task, request: Request) -> Response:
    return _json({**video_tasks.render(task, request), **SUCCESS}, video_tasks.poll_headers(task))


def _json(answer: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(answer), headers=headers, media_type="application/json")
