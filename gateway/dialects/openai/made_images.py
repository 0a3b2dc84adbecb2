"""The answers of the routes whose operation makes one picture. Shapes are those of /v1/images/edits."""

import asyncio
import base64
import time
from typing import Annotated, Any

import orjson
from fastapi import Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from gateway.dialects.openai import images_responses
from gateway.dialects.openai.response_models import SUCCESS, SuccessFields
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.made_images import MAX_JSON_VALUES, MadeImageFields
from gateway.http import delivery
from gateway.http.openapi_responses import omitted
from gateway.http.request_images import RequestImages
from gateway.http.routes import route_class
from gateway.model_card.image_limits import format_size
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.generate_image import OutputFormat
from gateway.operations.made_image import MadeImage, MakeImage, gather

made_image_route = route_class(OPENAI_ERRORS, max_json_values=MAX_JSON_VALUES, forms=True)
EXAMPLE: dict[str, Any] = {
    "created": 1763683200,
    "data": [{"url": "https://api.example/files/4f1c2a7d?signature=d3e1"}],
    "output_format": "png",
    "size": "256x256",
    "usage": images_responses.ZERO_USAGE,
    **SUCCESS,
}


class MadePicture(BaseModel):
    """The picture, at a URL or in base64."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted)]


class MadeImageResponse(SuccessFields):
    """The one picture, and its size in pixels."""

    created: int
    data: Annotated[list[MadePicture], Field(min_length=1, max_length=1)]
    output_format: OutputFormat
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    usage: images_responses.ImageUsage


async def answer(request: Request, body: MadeImageFields, model: Model, operation: MakeImage) -> Response:
    """Have `model` make the picture, and return the response. Raises the `GatewayError`s of the model and the store."""
    catalog: Catalog = request.app.state.catalog
    made = await delivery.whole(request, gather(catalog.run(model, operation, request.state.trace)))
    url = None
    if body.response_format != "b64_json":
        url = await RequestImages(request).store(made.data, operation.output_format)
    # Encoding a large image in base64 would block the event loop.
    return Response(await asyncio.to_thread(_render, operation, made, url), media_type="application/json")


def _render(operation: MakeImage, made: MadeImage, url: str | None) -> bytes:
    picture: dict[str, Any] = {"b64_json": base64.b64encode(made.data).decode()} if url is None else {"url": url}
    facts = {name: value for name, value in operation.facts(made).items() if name not in ("width", "height")}
    return orjson.dumps(
        {
            "created": int(time.time()),
            "data": [picture],
            "output_format": operation.output_format,
            "size": format_size((made.width, made.height)),
            **facts,
            "usage": images_responses.ZERO_USAGE,
            **SUCCESS,
        }
    )
