"""POST /v1/images/face-swaps: a picture with the face of another one.

OpenAI has no such route; its shapes are those of /v1/images/edits.
"""

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
from gateway.dialects.openai.wire import face_swaps
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.face_swaps import CreateFaceSwapRequest
from gateway.errors import ModelNotFound
from gateway.http import delivery
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES, omitted
from gateway.http.request_images import RequestImages
from gateway.http.routes import route_class
from gateway.model_card.image_limits import format_size
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.generate_image import OutputFormat
from gateway.operations.swap_face import SwapFace, SwappedImage, gather

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, max_json_values=face_swaps.MAX_JSON_VALUES, forms=True), tags=["Images"]
)


class SwappedPicture(BaseModel):
    """The picture, at a URL or in base64."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted)]


class FaceSwapResponse(SuccessFields):
    """The one picture, its size in pixels, and the number of faces that were swapped."""

    created: int
    data: Annotated[list[SwappedPicture], Field(min_length=1, max_length=1)]
    output_format: OutputFormat
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    num_faces: Annotated[int, Field(ge=1)]
    usage: images_responses.ImageUsage


_EXAMPLE = {
    "created": 1763683200,
    "data": [{"url": "https://api.example/files/4f1c2a7d?signature=d3e1"}],
    "output_format": "png",
    "size": "1920x1280",
    "num_faces": 3,
    "usage": images_responses.ZERO_USAGE,
    **SUCCESS,
}


@router.post(
    "/v1/images/face-swaps",
    summary="Swap faces",
    responses=OPENAI_DOCS.responses(
        FaceSwapResponse, STORED_OUTPUT_FAILURES, description="The picture.", example=_EXAMPLE
    ),
    openapi_extra=face_swaps.form_request_body(CreateFaceSwapRequest),
)
async def create_face_swap(body: CreateFaceSwapRequest, request: Request) -> Response:
    """Put the largest face of `source` on all faces of `target`."""
    model = _model(request, body.model)
    operation = await face_swaps.parse_face_swap(body, model.name, request)
    catalog: Catalog = request.app.state.catalog
    made = await delivery.whole(request, gather(catalog.run(model, operation, request.state.trace)))
    url = None
    if body.response_format != "b64_json":
        url = await RequestImages(request).store(made.data, operation.output_format)
    # Encoding a large image in base64 would block the event loop.
    answer = await asyncio.to_thread(_render, operation, made, url)
    return Response(answer, media_type="application/json")


def _model(request: Request, name: str | None) -> Model:
    """Return the model `name`, or the first that swaps faces. Raises as the catalog does."""
    catalog: Catalog = request.app.state.catalog
    if name:
        return catalog.get(name, SwapFace)
    model = catalog.first_model_for(SwapFace)
    if model is None:
        raise ModelNotFound("No model supports this operation.", param="model")
    return model


def _render(operation: SwapFace, made: SwappedImage, url: str | None) -> bytes:
    picture: dict[str, Any] = {"b64_json": base64.b64encode(made.data).decode()} if url is None else {"url": url}
    return orjson.dumps(
        {
            "created": int(time.time()),
            "data": [picture],
            "output_format": operation.output_format,
            "size": format_size((made.width, made.height)),
            "num_faces": made.num_faces,
            "usage": images_responses.ZERO_USAGE,
            **SUCCESS,
        }
    )
