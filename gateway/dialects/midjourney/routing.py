"""Registration of routes: each exists at /mj, and at /{mode}/mj."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from gateway.dialects.midjourney import access
from gateway.dialects.midjourney.errors import MIDJOURNEY_DOCS, MIDJOURNEY_ERRORS, SubmitResult
from gateway.http.openapi_responses import LOOKUP_FAILURES, STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class

Register = Callable[[Any], Any]

midjourney_route = route_class(MIDJOURNEY_ERRORS, authorize=access.authorize)
picture_route = route_class(MIDJOURNEY_ERRORS, authorize=access.authorize_picture)

SUBMIT_RESPONSES = MIDJOURNEY_DOCS.responses(
    SubmitResult,
    STORED_OUTPUT_FAILURES,
    description="The task, or the reason why there is none.",
    example={"code": 1, "description": "Submit success", "result": "task_06", "properties": {}},
)
LOOKUP_STATUSES = LOOKUP_FAILURES


def post(router: APIRouter, path: str, **options: Any) -> Register:
    """Return a decorator that adds a POST route at both paths. The document shows the first."""
    return _register(router.post, path, options)


def get(router: APIRouter, path: str, **options: Any) -> Register:
    """Return a decorator that adds a GET route at both paths. The document shows the first."""
    return _register(router.get, path, options)


def head(router: APIRouter, path: str) -> Register:
    """Return a decorator that adds a HEAD route at both paths, which the document does not show."""
    return _register(router.head, path, {"include_in_schema": False})


def _register(method: Callable[..., Register], path: str, options: dict[str, Any]) -> Register:
    def register(handler: Any) -> Any:
        method(f"/{{mode}}/mj{path}", **{**options, "include_in_schema": False})(handler)
        return method(f"/mj{path}", **options)(handler)

    return register
