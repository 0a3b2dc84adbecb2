"""POST /v1/images/face-swaps: a picture with the face of another one.

OpenAI has no such route; its shapes are those of /v1/images/edits.
"""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from gateway.dialects.openai import made_images
from gateway.dialects.openai.wire import face_swaps
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.face_swaps import CreateFaceSwapRequest
from gateway.dialects.openai.wire.made_images import form_request_body
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.models.catalog import Catalog
from gateway.operations.swap_face import SwapFace

router = APIRouter(route_class=made_images.made_image_route, tags=["Images"])


class FaceSwapResponse(made_images.MadeImageResponse):
    """The one picture, its size in pixels, and the number of faces that were swapped."""

    num_faces: Annotated[int, Field(ge=1)]


@router.post(
    "/v1/images/face-swaps",
    summary="Swap faces",
    responses=OPENAI_DOCS.responses(
        FaceSwapResponse,
        STORED_OUTPUT_FAILURES,
        description="The picture.",
        example={**made_images.EXAMPLE, "size": "1920x1280", "num_faces": 3},
    ),
    openapi_extra=form_request_body(CreateFaceSwapRequest, *face_swaps.FILES),
)
async def create_face_swap(body: CreateFaceSwapRequest, request: Request) -> Response:
    """Put the largest face of `source` on all faces of `target`."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get_or_first(body.model, SwapFace)
    return await made_images.answer(request, body, model, await face_swaps.parse_face_swap(body, model.name, request))
