"""POST /v1/images/upscales: a larger picture. OpenAI has no such route; shapes are those of /v1/images/edits."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai import made_images
from gateway.dialects.openai.wire import upscales
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.made_images import form_request_body
from gateway.dialects.openai.wire.upscales import CreateImageUpscaleRequest
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.models.catalog import Catalog
from gateway.operations.upscale_image import UpscaleImage

router = APIRouter(route_class=made_images.made_image_route, tags=["Images"])


class UpscaleResponse(made_images.MadeImageResponse):
    """The one picture, and its size in pixels."""


@router.post(
    "/v1/images/upscales",
    summary="Upscale an image",
    responses=OPENAI_DOCS.responses(
        UpscaleResponse, STORED_OUTPUT_FAILURES, description="The larger image.", example=made_images.EXAMPLE
    ),
    openapi_extra=form_request_body(CreateImageUpscaleRequest, *upscales.FILES),
)
async def create_image_upscale(body: CreateImageUpscaleRequest, request: Request) -> Response:
    """Multiply the width and the height of an image by `scale`."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get_or_first(body.model, UpscaleImage)
    return await made_images.answer(request, body, model, await upscales.parse_upscale(body, model.name, request))
