"""The routes /{platform}/v1/videos: videos as tasks, their states, and their files.

Seed: the all-platform document, 视频接口. It defines neither types nor states of tasks: these are those of image
tasks. Listing, cancelling and previews are extensions of it, as is `webhook_url`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict
from starlette.responses import Response

from gateway.dialects.openai.wire import video_tasks, videos
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.video_docs import content_responses, with_poll_header
from gateway.dialects.openai.wire.video_tasks import KINDS, Variant
from gateway.dialects.openai.wire.videos import CreateVideoRequest, Reference, RemixVideoRequest
from gateway.dialects.platform import access, tasks
from gateway.dialects.platform.response_models import VideoTask, VideoTaskList
from gateway.errors import UnsupportedOption
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.models.servers import Model
from gateway.operations.generate_video import SIZE_AND_LENGTH, GenerateVideo
from gateway.tasks.task import Task

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, recordings=True, authorize=access.authorize), tags=["Platforms"]
)

_PATH = "/{platform}/v1/videos"
_EXAMPLE = tasks.example_task("video", "moving-shapes")
_SHOWN = (
    *("prompt", "negative_prompt", "seconds", "width", "height", "fps", "steps"),
    *("guidance_scale", "strength", "seed", "quality", "remixed_from"),
)


class CreatePlatformVideoRequest(CreateVideoRequest):
    """The body of a video generation: OpenAI's. `input_reference` is a URL, a data URL, base64, or a file of a form."""

    model: str


class RemixPlatformVideoRequest(RemixVideoRequest):
    """The body of a remix. A model changes the video alone, so an `input_reference` is refused."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "moving-shapes", "prompt": "a blue circle moves to the left"}]}
    )

    model: str
    input_reference: Reference = None


_CREATE = OPENAI_DOCS.responses(
    VideoTask,
    STORED_OUTPUT_FAILURES,
    description="The task that generates the video.",
    example={**_EXAMPLE, "status": "queued"},
)
_CANCEL = tasks.task_responses(VideoTask, _EXAMPLE)
_RETRIEVE = with_poll_header(_CANCEL)
_LIST = tasks.task_list_responses(VideoTaskList, _EXAMPLE)
_CONTENT = content_responses(tasks.NOT_FOUND_DESCRIPTION.removesuffix(".") + ", or the file has expired.")


@router.post(
    _PATH,
    summary="Generate a video",
    responses=_CREATE,
    openapi_extra=videos.form_request_body(CreatePlatformVideoRequest, "input_reference"),
)
async def create_video(platform: str, body: CreatePlatformVideoRequest, request: Request) -> Response:
    """Queue a video of what `prompt` describes. With `input_reference`, it starts from a picture or changes a video."""
    operation = await video_tasks.generation(body, _find_model(request, body.model), body.model, request)
    return await tasks.submit(request, operation, body.webhook_url)


@router.post(
    f"{_PATH}/{{task_id}}/remix",
    summary="Remix a video",
    responses=_CREATE,
    openapi_extra=videos.form_request_body(RemixPlatformVideoRequest, "input_reference"),
)
async def remix_video(platform: str, task_id: str, body: RemixPlatformVideoRequest, request: Request) -> Response:
    """Queue a video that changes a completed one of the same key and platform by a new `prompt`."""
    source = await tasks.find_task(request, task_id, KINDS)
    if body.input_reference is not None:
        raise UnsupportedOption(
            "A remix takes no 'input_reference': the model changes the video alone.", param="input_reference"
        )
    operation = await video_tasks.remix(body, source, _find_model(request, body.model), body.model, request)
    return await tasks.submit(request, operation, body.webhook_url)


@router.get(f"{_PATH}/{{task_id}}", summary="Retrieve a task", responses=_RETRIEVE)
async def retrieve_video(
    platform: str,
    task_id: str,
    request: Request,
    detail: Annotated[bool, Query(description="Return the details of the task too, with its video.")] = False,
) -> Response:
    """Return a task that the same key made at the same platform."""
    task = await tasks.find_task(request, task_id, KINDS)
    return tasks.respond(task, _render_detail(task, request) if detail else None, video_tasks.poll_headers(task))


@router.delete(f"{_PATH}/{{task_id}}", summary="Cancel a task", responses=_CANCEL)
async def cancel_video(platform: str, task_id: str, request: Request) -> Response:
    """Cancel a task, also while a model works on it, and return the task. A task that has ended does not change."""
    return await tasks.cancel(request, task_id, KINDS)


@router.get(_PATH, summary="List tasks", responses=_LIST)
async def list_videos(
    platform: str,
    request: Request,
    limit: tasks.PageLimit = 20,
    after: tasks.After = None,
    status: tasks.StatusFilter = None,
) -> Response:
    """Return the videos that the same key made at the same platform, the newest first."""
    return await tasks.list_kinds(request, KINDS, limit=limit, after=after, status=status)


@router.head(f"{_PATH}/{{task_id}}/content", include_in_schema=False)
@router.get(f"{_PATH}/{{task_id}}/content", summary="Download a video", responses=_CONTENT)
async def download_video(
    platform: str,
    task_id: str,
    request: Request,
    variant: Annotated[Variant, Query(description="The MP4 file, or a preview of it.")] = "video",
) -> Response:
    """Return the file of a completed video, its first frame (WebP), or a sheet with some of its frames (JPEG)."""
    return await video_tasks.content(request, await tasks.find_task(request, task_id, KINDS), variant)


def _find_model(request: Request, name: str) -> Model:
    return access.find_model(request, name, GenerateVideo)


def _render_detail(task: Task, request: Request) -> dict[str, Any]:
    asked = task.request
    urls = tasks.output_urls(task, request)
    return {
        **tasks.render_state(task),
        "request": {name: asked[name] for name in _SHOWN if asked.get(name) is not None},
        "data": [
            {"url": url, **{name: output.facts.get(name) for name in ("seed", *SIZE_AND_LENGTH)}}
            for url, output in zip(urls, task.outputs, strict=True)
        ],
    }
