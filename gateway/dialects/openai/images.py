"""POST /v1/images/generations, /edits and /variations: https://platform.openai.com/docs/api-reference/images

Seeds: the standard document's image model and its editing model, the concise reference's image generation.
"""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway import delivery
from gateway.catalog import Catalog
from gateway.dialects.openai import images_answers
from gateway.dialects.route import route_class
from gateway.dialects.vocabulary import documented, errors, images, pictures
from gateway.dialects.vocabulary.images import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageFields,
)
from gateway.dialects.vocabulary.keeping import Keeping
from gateway.endpoints import Model
from gateway.errors import ModelNotFound
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, gather

router = APIRouter(route_class=route_class(errors.render, values=images.VALUES, forms=True), tags=["Images"])

_FORM = {"background": "opaque", "output_format": "png", "quality": "medium", "size": "128x128"}


def _responses(kind: Literal["image_generation", "image_edit"]) -> documented.Responses:
    usage = images_answers.USAGE
    event = {"b64_json": "iVBORw0KGgo=", "index": 0, "created_at": 1763683200, **_FORM, "seed": 7, "usage": usage}
    edits = kind == "image_edit"
    return documented.responses(
        images_answers.ImagesResponse,
        documented.DRAWING,
        description="The pictures, or, with `stream`, events that bear previews and pictures.",
        example={
            "created": 1763683200,
            "data": [{"url": "https://api.example/files/4f1c2a7d?signature=d3e1", "seed": 7}],
            **_FORM,
            "usage": usage,
            "code": 0,
            "message": "success",
        },
        event=images_answers.ImageEditCompletedEvent if edits else images_answers.ImageGenCompletedEvent,
        event_example={"type": f"{kind}.completed", **event},
        more_events=(images_answers.ImageEditPartialImageEvent if edits else images_answers.ImageGenPartialImageEvent,),
    )


@router.post(
    "/v1/images/generations",
    summary="Draw pictures",
    responses=_responses("image_generation"),
    openapi_extra=images.form(CreateImageRequest, "image", "mask"),
)
async def create_image(body: CreateImageRequest, request: Request) -> Response:
    """Draw pictures of what `prompt` says, into `image` where there is one."""
    model = _model(request, body, EditImage if body.edits else GenerateImage)
    asked = await pictures.generation(body, model.name, request)
    return await _answer(request, body, model, asked, "image_generation")


@router.post(
    "/v1/images/edits",
    summary="Edit a picture",
    responses=_responses("image_edit"),
    openapi_extra=images.form(CreateImageEditRequest, "image", "mask"),
)
async def create_image_edit(body: CreateImageEditRequest, request: Request) -> Response:
    """Draw what `prompt` says into a picture: where `mask` is transparent, or everywhere."""
    model = _model(request, body, EditImage)
    return await _answer(request, body, model, await pictures.edit(body, model.name, request), "image_edit")


@router.post(
    "/v1/images/variations",
    summary="Draw pictures like another",
    responses=_responses("image_edit"),
    openapi_extra=images.form(CreateImageVariationRequest, "image"),
)
async def create_image_variation(body: CreateImageVariationRequest, request: Request) -> Response:
    """Draw pictures that begin with another, without a prompt."""
    model = _model(request, body, EditImage)
    return await _answer(request, body, model, await pictures.variation(body, model.name, request), "image_edit")


def _model(request: Request, body: ImageFields, operation: type[GenerateImage]) -> Model:
    """The model that is asked for, or the first by name that can do it."""
    catalog: Catalog = request.app.state.catalog
    if body.model:
        return catalog.get(body.model, operation)
    model = catalog.offering(operation)
    if model is None:
        raise ModelNotFound("No model is served that can do this.", param="model")
    return model


async def _answer(
    request: Request,
    body: ImageFields,
    model: Model,
    asked: GenerateImage,
    kind: Literal["image_generation", "image_edit"],
) -> Response:
    catalog: Catalog = request.app.state.catalog
    events = catalog.run(model, asked, request.state.trace)
    if body.stream:
        return await delivery.sse(request, events, images_answers.Events(asked, kind).render, errors.body, b"[DONE]")
    drawn = await delivery.whole(request, gather(events))
    urls = None
    if (body.response_format or _usual_format(body.model)) != "b64_json":
        urls = await Keeping(request).urls((image.data for image in drawn), asked.output_format)
    # Ten large pictures in base64 would keep others waiting.
    answer = await asyncio.to_thread(images_answers.render, asked, drawn, urls)
    return Response(answer, media_type="application/json")


def _usual_format(model: str | None) -> str:
    """What who asks by one of OpenAI's names expects: its newer models never answer with a URL."""
    return "b64_json" if (model or "").startswith(("gpt-image", "chatgpt-image")) else "url"
