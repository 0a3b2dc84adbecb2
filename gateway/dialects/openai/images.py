"""POST /v1/images/generations, /edits and /variations: https://platform.openai.com/docs/api-reference/images

Seeds: the standard document's image model and its editing model, the concise reference's image generation.
"""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai import images_responses
from gateway.dialects.openai.wire import image_inputs, images
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.images import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageFields,
)
from gateway.http import delivery
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES, Responses
from gateway.http.request_images import RequestImages
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, gather

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, max_json_values=images.MAX_JSON_VALUES, forms=True), tags=["Images"]
)

_EXAMPLE_ATTRIBUTES = {"background": "opaque", "output_format": "png", "quality": "medium", "size": "128x128"}


def _responses(kind: Literal["image_generation", "image_edit"]) -> Responses:
    usage = images_responses.ZERO_USAGE
    event = {
        "b64_json": "iVBORw0KGgo=",
        "index": 0,
        "created_at": 1763683200,
        **_EXAMPLE_ATTRIBUTES,
        "seed": 7,
        "usage": usage,
    }
    edits = kind == "image_edit"
    return OPENAI_DOCS.responses(
        images_responses.ImagesResponse,
        STORED_OUTPUT_FAILURES,
        description="The images; with `stream`, events with previews and images.",
        example={
            "created": 1763683200,
            "data": [{"url": "https://api.example/files/4f1c2a7d?signature=d3e1", "seed": 7}],
            **_EXAMPLE_ATTRIBUTES,
            "usage": usage,
            "code": 0,
            "message": "success",
        },
        event=images_responses.ImageEditCompletedEvent if edits else images_responses.ImageGenCompletedEvent,
        event_example={"type": f"{kind}.completed", **event},
        more_events=(
            images_responses.ImageEditPartialImageEvent if edits else images_responses.ImageGenPartialImageEvent,
        ),
    )


@router.post(
    "/v1/images/generations",
    summary="Generate images",
    responses=_responses("image_generation"),
    openapi_extra=images.form_request_body(CreateImageRequest, "image", "mask"),
)
async def create_image(body: CreateImageRequest, request: Request) -> Response:
    """Generate images from `prompt`. With `image`, edit that one."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get_or_first(body.model, EditImage if body.is_edit else GenerateImage)
    operation = await image_inputs.parse_generation(body, model.name, request)
    return await _answer(request, body, model, operation, "image_generation")


@router.post(
    "/v1/images/edits",
    summary="Edit an image",
    responses=_responses("image_edit"),
    openapi_extra=images.form_request_body(CreateImageEditRequest, "image", "mask"),
)
async def create_image_edit(body: CreateImageEditRequest, request: Request) -> Response:
    """Edit an image by `prompt`, where `mask` is transparent or everywhere."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get_or_first(body.model, EditImage)
    return await _answer(request, body, model, await image_inputs.parse_edit(body, model.name, request), "image_edit")


@router.post(
    "/v1/images/variations",
    summary="Generate variations of an image",
    responses=_responses("image_edit"),
    openapi_extra=images.form_request_body(CreateImageVariationRequest, "image"),
)
async def create_image_variation(body: CreateImageVariationRequest, request: Request) -> Response:
    """Generate images that start from another one, without a prompt."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get_or_first(body.model, EditImage)
    return await _answer(
        request, body, model, await image_inputs.parse_variation(body, model.name, request), "image_edit"
    )


async def _answer(
    request: Request,
    body: ImageFields,
    model: Model,
    operation: GenerateImage,
    kind: Literal["image_generation", "image_edit"],
) -> Response:
    catalog: Catalog = request.app.state.catalog
    events = catalog.run(model, operation, request.state.trace)
    if body.stream:
        return await delivery.sse(
            request,
            events,
            images_responses.ImageEventRenderer(operation, kind).render,
            OPENAI_ERRORS.render_event,
            b"[DONE]",
        )
    generated = await delivery.whole(request, gather(events))
    urls = None
    if (body.response_format or _default_response_format(body.model)) != "b64_json":
        urls = await RequestImages(request).store_all((image.data for image in generated), operation.output_format)
    # Encoding ten large images in base64 would block the event loop.
    answer = await asyncio.to_thread(images_responses.render, operation, generated, urls)
    return Response(answer, media_type="application/json")


def _default_response_format(model: str | None) -> str:
    """Return the format that clients of this model expect: OpenAI's newer image models never answer with a URL."""
    return "b64_json" if (model or "").startswith(("gpt-image", "chatgpt-image")) else "url"
