"""POST /{platform}/v1/images/upscales: a larger picture at once, or as a task.

The platform document has no such route. Its shapes are those of /{platform}/v1/images/edits.
"""

import asyncio
import base64
import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from gateway.dialects.openai.wire import upscales
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.upscales import CreateImageUpscaleRequest
from gateway.dialects.platform import access, tasks
from gateway.dialects.platform.response_models import Images, ImageTask
from gateway.errors import Overloaded
from gateway.http import delivery
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.request_images import RequestImages
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.operations.upscale_image import UpscaleImage, gather

router = APIRouter(
    route_class=route_class(
        OPENAI_ERRORS, max_json_values=upscales.MAX_JSON_VALUES, forms=True, authorize=access.authorize
    ),
    tags=["Platforms"],
)


class CreatePlatformImageUpscaleRequest(CreateImageUpscaleRequest):
    """The body of a request to upscale a picture, with `async` and `webhook_url`.

    `response_format` is by default `b64_json`.
    """

    model: str
    async_: Annotated[
        bool | None, Field(alias="async", description="Answer at once with a task, and upscale in the background.")
    ] = None
    webhook_url: tasks.WebhookUrl = None


@router.post(
    "/{platform}/v1/images/upscales",
    summary="Upscale an image",
    responses=OPENAI_DOCS.responses(
        Images | ImageTask,
        STORED_OUTPUT_FAILURES,
        description="The larger image; with `async`, the task that makes it.",
        example={"created": 1763683200, "data": [{"b64_json": "data:image/png;base64,iVBORw0KGgo="}]},
    ),
    openapi_extra=upscales.form_request_body(CreatePlatformImageUpscaleRequest),
)
async def create_image_upscale(
    platform: str,
    body: CreatePlatformImageUpscaleRequest,
    request: Request,
    in_query: Annotated[bool | None, Query(alias="async", description="The same as the field of this name.")] = None,
) -> Response:
    """Multiply the width and the height of an image by `scale`."""
    later = bool(body.async_ or in_query)
    if not later:
        tasks.reject_webhook(body.webhook_url)
    try:
        model = access.find_model(request, body.model, UpscaleImage)
    except Overloaded:
        if not later:
            raise
        model = None  # a task can wait for its server
    operation = await upscales.parse_upscale(body, model.name if model else body.model, request)
    if later or model is None:
        return await tasks.submit(request, operation, body.webhook_url)
    catalog: Catalog = request.app.state.catalog
    made = await delivery.whole(request, gather(catalog.run(model, operation, request.state.trace)))
    if body.response_format == "url":
        url = await RequestImages(request).store(made.data, operation.output_format)
        return Response(_render({"url": url}), media_type="application/json")
    # Encoding a large image in base64 would block the event loop.
    kind = operation.output_format
    answer = await asyncio.to_thread(
        lambda: _render({"b64_json": f"data:image/{kind};base64,{base64.b64encode(made.data).decode()}"})
    )
    return Response(answer, media_type="application/json")


def _render(picture: dict[str, Any]) -> bytes:
    return orjson.dumps({"created": int(time.time()), "data": [picture]})
