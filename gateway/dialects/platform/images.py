"""POST /{platform}/v1/images/generations and /edits: images at once, or as a task.

Seed: the all-platform document, 图片生成接口 and 图片编辑接口.
"""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from gateway.dialects.openai.wire import image_inputs, images
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.images import CreateImageEditRequest, CreateImageRequest
from gateway.dialects.platform import access, image_answers, tasks
from gateway.dialects.platform.response_models import Images, ImageTask
from gateway.errors import UnsupportedOption
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, gather

router = APIRouter(
    route_class=route_class(
        OPENAI_ERRORS, max_json_values=images.MAX_JSON_VALUES, forms=True, authorize=access.authorize
    ),
    tags=["Platforms"],
)

_ASYNC = Field(alias="async", description="Answer at once with a task, and generate in the background.")


class CreatePlatformImageRequest(CreateImageRequest):
    """The body of an image generation: OpenAI's, with `async` and `webhook_url`.

    `response_format` is by default `b64_json`.
    """

    model: str
    async_: Annotated[bool | None, _ASYNC] = None
    webhook_url: tasks.WebhookUrl = None


class CreatePlatformImageEditRequest(CreateImageEditRequest):
    """The body of an edit: OpenAI's, with `async` and `webhook_url`.

    `response_format` is by default `b64_json`.
    """

    model: str
    async_: Annotated[bool | None, _ASYNC] = None
    webhook_url: tasks.WebhookUrl = None


_RESPONSES = OPENAI_DOCS.responses(
    Images | ImageTask,
    STORED_OUTPUT_FAILURES,
    description="The images; with `async`, the task that generates them.",
    example={"created": 1763683200, "data": [{"b64_json": "data:image/png;base64,iVBORw0KGgo="}]},
)


@router.post(
    "/{platform}/v1/images/generations",
    summary="Generate images",
    responses=_RESPONSES,
    openapi_extra=images.form_request_body(CreatePlatformImageRequest, "image", "mask"),
)
async def create_image(
    platform: str, body: CreatePlatformImageRequest, request: Request, in_query: tasks.AsyncQuery = None
) -> Response:
    """Generate images from `prompt`. With `image`, edit that one."""
    later = bool(body.async_ or in_query)
    _check(body, later=later)
    model = image_answers.find_model(request, body.model, EditImage if body.is_edit else GenerateImage, later=later)
    operation = await image_inputs.parse_generation(body, model.name if model else body.model, request)
    return await image_answers.answer(request, body, model, operation, gather, later=later)


@router.post(
    "/{platform}/v1/images/edits",
    summary="Edit an image",
    responses=_RESPONSES,
    openapi_extra=images.form_request_body(CreatePlatformImageEditRequest, "image", "mask"),
)
async def create_image_edit(
    platform: str, body: CreatePlatformImageEditRequest, request: Request, in_query: tasks.AsyncQuery = None
) -> Response:
    """Edit an image by `prompt`. The image is a URL, a data URL, base64, or a file of the form."""
    later = bool(body.async_ or in_query)
    _check(body, later=later)
    model = image_answers.find_model(request, body.model, EditImage, later=later)
    operation = await image_inputs.parse_edit(body, model.name if model else body.model, request)
    return await image_answers.answer(request, body, model, operation, gather, later=later)


def _check(body: CreatePlatformImageRequest | CreatePlatformImageEditRequest, *, later: bool) -> None:
    if not later:
        tasks.reject_webhook(body.webhook_url)
    if body.stream:
        raise UnsupportedOption("'stream' is not supported on this route. Omit it, or use 'async'.", param="stream")
