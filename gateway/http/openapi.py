"""A FastAPI application that corrects its OpenAPI document."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class OpenAPIApplication(FastAPI):
    """A FastAPI application whose OpenAPI document has API keys, stream events, and only statuses that can occur."""

    def __init__(self, events: Sequence[type[BaseModel]], requires_key: Callable[[str], bool], **options: Any) -> None:
        """`events` are models that only streams have; responses refer to them by name.

        `requires_key` returns whether the routes at a path pattern require an API key. Such routes must
        have a 401 among their responses.
        """
        super().__init__(**options)
        self.router.routes = [route for route in self.router.routes if getattr(route, "path", "") != self.openapi_url]
        self.add_route(str(self.openapi_url), self._document, include_in_schema=False)
        self._requires_key = requires_key
        self._events = events
        self._routers: list[APIRouter] = []
        self._documented_routes: list[APIRoute] = []
        self._cached_document: bytes | None = None
        self._document_lock = asyncio.Lock()

    def include_router(self, router: APIRouter, **options: Any) -> None:
        """Add the routes of `router`."""
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        self._documented_routes += [route for route in routes if route.include_in_schema]
        # Every GET route also takes HEAD (RFC 9110, section 9.3.2); the server leaves the body out.
        with_head = {route.path for route in routes if "HEAD" in (route.methods or ())}
        for route in routes:
            if "GET" in (route.methods or ()) and route.path not in with_head:
                router.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
        self._routers.append(router)
        super().include_router(router, **options)

    def allowed_methods(self, scope: Scope) -> set[str]:
        """Return the methods that the routes at the path of `scope` support.

        If several patterns match, the one with the fewest parameters counts, as in the OpenAPI document:
        `/{platform}/v1/images/edits`, and not `/{platform}/v1/images/{task_id}`.
        """
        routes = [*self.router.routes, *(route for router in self._routers for route in router.routes)]
        found = [route for route in routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE]
        path = min((route.path for route in found), key=lambda path: path.count("{"), default=None)
        return {method for route in found if route.path == path for method in route.methods or ()}

    async def _document(self, request: Request) -> Response:
        """Return the document, which is created in a thread: that would block the event loop for too long."""
        async with self._document_lock:
            if self._cached_document is None:
                self._cached_document = await asyncio.to_thread(lambda: orjson.dumps(self.openapi()))
        return Response(self._cached_document, media_type="application/json")

    def openapi(self) -> dict[str, Any]:
        """Return the document, which is created once."""
        if self.openapi_schema is None:
            self.openapi_schema = self._corrected(super().openapi())
        return self.openapi_schema

    def _corrected(self, document: dict[str, Any]) -> dict[str, Any]:
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        _, streamed = models_json_schema(
            [(event, "serialization") for event in self._events], ref_template="#/components/schemas/{model}"
        )
        schemas.update(streamed.get("$defs", {}))
        # Invalid bodies are answered with 400 in the dialect's error format, not with FastAPI's 422.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for path, operations in document["paths"].items():
            needs_key = self._requires_key(path)
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if "401" in operation["responses"] and needs_key:
                    operation["security"] = [{"bearer": []}]
                    document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
                else:
                    operation["responses"].pop("401", None)
        self._write_examples(document)
        _write_integer_bounds(document)
        return document

    def _write_examples(self, document: dict[str, Any]) -> None:
        """Write the examples again: FastAPI removes every null from them."""
        for route in self._documented_routes:
            for method in route.methods or ():
                responses = document["paths"][route.path_format][method.lower()]["responses"]
                for status, response in route.responses.items():
                    for media_type, content in response.get("content", {}).items():
                        if "example" in content and str(status) in responses:
                            responses[str(status)]["content"][media_type]["example"] = content["example"]


def _write_integer_bounds(node: Any) -> None:
    """Write bounds of integers as integers, in place: FastAPI writes all bounds as floats."""
    if isinstance(node, dict):
        for key in _BOUNDS:
            if isinstance(bound := node.get(key), float) and bound.is_integer():
                node[key] = int(bound)
        for value in node.values():
            _write_integer_bounds(value)
    elif isinstance(node, list):
        for value in node:
            _write_integer_bounds(value)
