"""POST /v1/images/upscales: a larger picture. OpenAI has no such route; shapes are those of /v1/images/edits."""

import asyncio
import base64
import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from gateway.dialects.openai import images_responses
from gateway.dialects.openai.response_models import SUCCESS, SuccessFields
from gateway.dialects.openai.wire import upscales
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.upscales import CreateImageUpscaleRequest
from gateway.errors import ModelNotFound
from gateway.http import delivery
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES, omitted
from gateway.http.request_images import RequestImages
from gateway.http.routes import route_class
from gateway.model_card.image_limits import format_size
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.generate_image import OutputFormat
from gateway.operations.upscale_image import UpscaledImage, UpscaleImage, gather

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, max_json_values=upscales.MAX_JSON_VALUES, forms=True), tags=["Images"]
)


class UpscaledPicture(BaseModel):
    """The picture, at a URL or in base64."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted)]


class UpscaleResponse(SuccessFields):
    """The one picture, and its size in pixels."""

    created: int
    data: Annotated[list[UpscaledPicture], Field(min_length=1, max_length=1)]
    output_format: OutputFormat
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    usage: images_responses.ImageUsage


_EXAMPLE = {
    "created": 1763683200,
    "data": [{"url": "https://api.example/files/4f1c2a7d?signature=d3e1"}],
    "output_format": "png",
    "size": "256x256",
    "usage": images_responses.ZERO_USAGE,
    **SUCCESS,
}


@router.post(
    "/v1/images/upscales",
    summary="Upscale an image",
    responses=OPENAI_DOCS.responses(
        UpscaleResponse, STORED_OUTPUT_FAILURES, description="The larger image.", example=_EXAMPLE
    ),
    openapi_extra=upscales.form_request_body(CreateImageUpscaleRequest),
)
async def create_image_upscale(body: CreateImageUpscaleRequest, request: Request) -> Response:
    """Multiply the width and the height of an image by `scale`."""
    model = _model(request, body.model)
    operation = await upscales.parse_upscale(body, model.name, request)
    catalog: Catalog = request.app.state.catalog
    made = await delivery.whole(request, gather(catalog.run(model, operation, request.state.trace)))
    url = None
    if body.response_format != "b64_json":
        url = await RequestImages(request).store(made.data, operation.output_format)
    # Encoding a large image in base64 would block the event loop.
    answer = await asyncio.to_thread(_render, operation, made, url)
    return Response(answer, media_type="application/json")


def _model(request: Request, name: str | None) -> Model:
    """Return the model `name`, or the first that upscales. Raises as the catalog does."""
    catalog: Catalog = request.app.state.catalog
    if name:
        return catalog.get(name, UpscaleImage)
    model = catalog.first_model_for(UpscaleImage)
    if model is None:
        raise ModelNotFound("No model supports this operation.", param="model")
    return model


def _render(operation: UpscaleImage, made: UpscaledImage, url: str | None) -> bytes:
    picture: dict[str, Any] = {"b64_json": base64.b64encode(made.data).decode()} if url is None else {"url": url}
    return orjson.dumps(
        {
            "created": int(time.time()),
            "data": [picture],
            "output_format": operation.output_format,
            "size": format_size((made.width, made.height)),
            "usage": images_responses.ZERO_USAGE,
            **SUCCESS,
        }
    )
