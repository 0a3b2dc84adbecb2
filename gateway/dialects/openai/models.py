"""GET /v1/models and /v1/models/{id}: https://platform.openai.com/docs/api-reference/models

A superset of OpenAI's list and of the standard document's, which adds `project`, and each model's name and URL.
"""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai.response_models import ListModelsResponse, RetrieveModelResponse
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.http.openapi_responses import LIST_FAILURES, RETRIEVE_FAILURES
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.registry import known_operations
from gateway.settings import Settings

router = APIRouter(route_class=route_class(OPENAI_ERRORS), tags=["Models"])

_EXAMPLE = {
    "id": "smollm2-135m-instruct",
    "object": "model",
    "created": 1763683200,
    "owned_by": "HuggingFaceTB",
    "permission": [],
    "root": "smollm2-135m-instruct",
    "parent": None,
    "model": "smollm2-135m-instruct",
    "url": "https://api.example/v1/chat/completions",
}
_LIST_RESPONSES = OPENAI_DOCS.responses(
    ListModelsResponse,
    LIST_FAILURES,
    description="The models.",
    example={"object": "list", "project": "Tritonic", "data": [_EXAMPLE], "code": 0, "message": "success"},
)
_RETRIEVE_RESPONSES = OPENAI_DOCS.responses(
    RetrieveModelResponse,
    RETRIEVE_FAILURES,
    description="The model.",
    example={**_EXAMPLE, "code": 0, "message": "success"},
)


@router.get("/v1/models", summary="List models", responses=_LIST_RESPONSES)
async def list_models(request: Request) -> Response:
    """Return all models that can serve requests now."""
    catalog: Catalog = request.app.state.catalog
    settings: Settings = request.app.state.settings
    listing = {
        "object": "list",
        "project": settings.project,
        "data": [_render_model(model, request) for model in catalog.models()],
        "code": 0,
        "message": "success",
    }
    return Response(orjson.dumps(listing), media_type="application/json")


@router.get("/v1/models/{model_id:path}", summary="Describe a model", responses=_RETRIEVE_RESPONSES)
async def retrieve_model(model_id: str, request: Request) -> Response:
    """Return one model. Names may contain slashes."""
    catalog: Catalog = request.app.state.catalog
    # A model that was looked up by an alias is shown under that alias, as in the answers to chats.
    card = {
        **_render_model(catalog.get(model_id), request),
        "id": model_id,
        "model": model_id,
        "code": 0,
        "message": "success",
    }
    return Response(orjson.dumps(card), media_type="application/json")


def _render_model(model: Model, request: Request) -> dict[str, Any]:
    settings: Settings = request.app.state.settings
    base = (settings.public_url or str(request.base_url)).rstrip("/")
    path = next((operation.route for operation in known_operations(model.operations) if operation.route), "")
    permission = {
        "id": f"modelperm-{model.name}",
        "object": "model_permission",
        "created": model.created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": model.supports_logprobs,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "permission": [permission],
        "root": model.card.base_name or model.name,
        "parent": model.card.base_name,
        "model": model.name,
        "url": base + path,
    }
