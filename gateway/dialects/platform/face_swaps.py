"""POST /{platform}/v1/images/face-swaps: a picture with the face of another one, at once or as a task.

The platform document has no such route. Its shapes are those of /{platform}/v1/images/edits.
"""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from gateway.dialects.openai.wire import face_swaps
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.face_swaps import CreateFaceSwapRequest
from gateway.dialects.openai.wire.made_images import MAX_JSON_VALUES, form_request_body
from gateway.dialects.platform import access, image_answers, tasks
from gateway.dialects.platform.response_models import Images, ImageTask
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.operations.swap_face import SwapFace

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, max_json_values=MAX_JSON_VALUES, forms=True, authorize=access.authorize),
    tags=["Platforms"],
)


class CreatePlatformFaceSwapRequest(CreateFaceSwapRequest):
    """The body of a request to swap faces, with `async` and `webhook_url`.

    `response_format` is by default `b64_json`.
    """

    model: str
    async_: Annotated[
        bool | None, Field(alias="async", description="Answer at once with a task, and swap in the background.")
    ] = None
    webhook_url: tasks.WebhookUrl = None


@router.post(
    "/{platform}/v1/images/face-swaps",
    summary="Swap faces",
    responses=OPENAI_DOCS.responses(
        Images | ImageTask,
        STORED_OUTPUT_FAILURES,
        description="The picture; with `async`, the task that makes it.",
        example={"created": 1763683200, "data": [{"b64_json": "data:image/png;base64,iVBORw0KGgo="}]},
    ),
    openapi_extra=form_request_body(CreatePlatformFaceSwapRequest, *face_swaps.FILES),
)
async def create_face_swap(
    platform: str, body: CreatePlatformFaceSwapRequest, request: Request, in_query: tasks.AsyncQuery = None
) -> Response:
    """Put the largest face of `source` on all faces of `target`."""
    later = bool(body.async_ or in_query)
    if not later:
        tasks.reject_webhook(body.webhook_url)
    model = image_answers.find_model(request, body.model, SwapFace, later=later)
    operation = await face_swaps.parse_face_swap(body, model.name if model else body.model, request)
    return await image_answers.answer(request, body, model, operation, image_answers.gather_one, later=later)
