"""What every dialect needs of HTTP: who may call, how a body is read, and failures in the dialect's own shape."""

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from gateway.delivery import ClientGone
from gateway.errors import (
    RETRY_AFTER,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    Unauthorized,
)
from gateway.settings import Settings
from gateway.telemetry import Trace

RenderError: TypeAlias = Callable[[GatewayError], Response]

UNION_TAG = "·"
"""First character of union tags, which pydantic puts into the path of an error and clients must not see."""


class Wire(BaseModel):
    """A body as a document defines it: types are taken at their word, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def route_class(render_error: RenderError) -> type[APIRoute]:
    """Return a route class whose routes check the key, read JSON strictly, and render every failure."""

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                trace: Trace = request.state.trace
                trace.route = self.path
                settings: Settings = request.app.state.settings
                try:
                    authorize(request, settings)
                    if request.method in ("POST", "PUT", "PATCH"):
                        request = _JSONRequest(_as_json(request.scope), request.receive)
                        await request.read(settings.max_body_bytes, settings.body_timeout)
                    return await handle(request)
                except (ClientGone, ClientDisconnect):
                    trace.hung_up = True
                    return Response(status_code=499)  # nobody reads it; the log shows it
                except asyncio.CancelledError:
                    # Only the server itself cancels a request, when it stops before the request is done.
                    trace.error = Overloaded("The service is stopping.", retry_after=RETRY_AFTER)
                except RequestValidationError as invalid:
                    trace.error = _explain(invalid)
                except GatewayError as error:
                    trace.error = error
                except Exception:
                    structlog.get_logger("gateway").exception("failed", request_id=trace.request_id)
                    trace.error = GatewayError("The gateway failed on this request.")
                return render_error(trace.error)

            return handler

    return DialectRoute


def authorize(request: Request, settings: Settings) -> None:
    """Let a request pass when no keys are set or it bears one of them. Raises `Unauthorized`."""
    if not settings.api_keys:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized("This service asks for a key: send the header 'Authorization: Bearer YOUR_KEY'.")
    # Every key is compared, each in constant time, so that time tells nothing about them.
    matches = [
        hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode()) for key in settings.api_keys
    ]
    if not any(matches):
        raise Unauthorized("The key of the header 'Authorization' is not known here.")


class _JSONRequest(Request):
    """A request whose body is read within a limit and parsed strictly, whatever its content type says."""

    async def read(self, limit: int, seconds: float) -> None:
        """Read and parse the body. Raises `RequestTooLarge`, `RequestTimeout` and `InvalidRequest`."""
        too_large = RequestTooLarge(f"The body is larger than this service takes, {limit} bytes.")
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for chunk in self.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None
        self._body = bytes(body)
        try:
            # Refuses lone surrogates, invalid UTF-8 and bottomless nesting, which Python's parser lets pass. NaN is
            # let through here, because the field that holds it can say so better.
            self._json = from_json(self._body, allow_inf_nan=True)
        except ValueError as error:
            hint = " (text must be valid Unicode, without lone surrogates)" if "hex escape" in str(error) else ""
            raise InvalidRequest(f"The body is not valid JSON: {error}{hint}.") from None
        if not isinstance(self._json, dict):
            raise InvalidRequest("The body must be a JSON object.")


def _as_json(scope: Scope) -> Scope:
    """FastAPI parses only what calls itself JSON, and `curl -d` says form data unless told otherwise."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


_LONGEST_NAME = 64
"""Characters of a caller's own name that are shown in a path: it may be a megabyte long."""


def _explain(invalid: RequestValidationError) -> InvalidRequest:
    """Say which field is wrong and what was expected, from pydantic's first error."""
    error = invalid.errors()[0]
    path = ""
    for part in error["loc"][1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(UNION_TAG) and part != "[key]":  # pydantic's word for a wrong key, which it follows
            shown = part[:_LONGEST_NAME] or "''"
            path += f".{shown}" if path else shown
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return InvalidRequest(f"The field '{path}' is required.", param=path)
    return InvalidRequest(f"Invalid value for '{path}': {message}.", param=path or None)
