"""What every dialect needs of HTTP: who may call and how often, how a body is read, and failures in its own shape."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import aclosing
from typing import Any, TypeAlias

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope

from gateway import rates
from gateway.dialects import forms as form_bodies
from gateway.errors import (
    RETRY_AFTER,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    Unauthorized,
)
from gateway.rates import RateLimits
from gateway.settings import Settings
from gateway.telemetry import Trace
from gateway.watching import ClientGone

RenderError: TypeAlias = Callable[[GatewayError], Response]
Authorize: TypeAlias = Callable[[Request], str]

UNION_TAG = "·"
"""First character of union tags, which pydantic puts into the path of an error and clients must not see."""


class Wire(BaseModel):
    """A body as a document defines it: types are taken at their word, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def route_class(
    render_error: RenderError, *, forms: bool = False, authorize: Authorize | None = None
) -> type[APIRoute]:
    """Return a route class whose routes check the key and the caller's rates, read JSON strictly, and render failures.

    With `forms` they read `multipart/form-data`, too (`gateway.dialects.forms`). `authorize` says who the caller is
    (`check_key`) or raises a `GatewayError`; unless it is given, the setting `api_keys` says who may call.
    """
    let_pass = authorize or _authorize

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                trace: Trace = request.state.trace
                trace.route = self.path
                settings: Settings = request.app.state.settings
                try:
                    trace.caller = let_pass(request)
                    if request.method in ("POST", "PUT", "PATCH"):
                        limits: RateLimits | None = request.app.state.rates
                        if limits:
                            trace.charge = limits.charge
                            await limits.admit(trace.caller, trace.headers)
                        form = forms and request.headers.get("content-type", "").lower().startswith(form_bodies.TYPE)
                        reading = _FormRequest if form else _JSONRequest
                        request = reading(_as_json(request.scope), request.receive, request.headers)
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


def _authorize(request: Request) -> str:
    settings: Settings = request.app.state.settings
    return check_key(request, settings.api_keys)


def check_key(request: Request, keys: Collection[SecretStr]) -> str:
    """Let a request pass when there are no `keys` or it bears one of them, and return what stands for its caller.

    That is its key, and its address where there are no `keys`: one that nobody has given out would be another caller
    with every request. Raises `Unauthorized`.
    """
    if not keys:
        return rates.of_address(request.client.host if request.client else None)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized("This service asks for a key: send the header 'Authorization: Bearer YOUR_KEY'.")
    # Every key is compared, each in constant time, so that time tells nothing about them.
    matches = [hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode()) for key in keys]
    if not any(matches):
        raise Unauthorized("The key of the header 'Authorization' is not known here.")
    return rates.of_key(given.strip())


class _LimitedRequest(Request):
    """A request whose body is read within a limit, whatever its content type says. FastAPI takes what it `holds`."""

    def __init__(self, scope: Scope, receive: Receive, given: Headers) -> None:
        """`given` are the headers as they came."""
        super().__init__(scope, receive)
        self._given = given

    async def read(self, limit: int, seconds: float) -> None:
        """Read and parse the body. Raises `RequestTooLarge`, `RequestTimeout` and `InvalidRequest`."""
        try:
            async with asyncio.timeout(seconds):
                async with aclosing(self._within(limit)) as chunks:
                    self._json = await self._parse(chunks)
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None

    async def _parse(self, chunks: AsyncGenerator[bytes]) -> dict[str, Any]:
        raise NotImplementedError

    async def _within(self, limit: int) -> AsyncGenerator[bytes]:
        too_large = RequestTooLarge(f"The body is larger than this service takes, {limit} bytes.")
        length = self._given.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        left = limit
        async for chunk in self.stream():
            left -= len(chunk)
            if left < 0:
                raise too_large
            yield chunk


class _JSONRequest(_LimitedRequest):
    """A request whose body is JSON, parsed strictly."""

    async def _parse(self, chunks: AsyncGenerator[bytes]) -> dict[str, Any]:
        self._body = b"".join([chunk async for chunk in chunks])
        try:
            # Refuses lone surrogates, invalid UTF-8 and bottomless nesting, which Python's parser lets pass. NaN is
            # let through here, because the field that holds it can say so better.
            body = from_json(self._body, allow_inf_nan=True)
        except ValueError as error:
            hint = " (text must be valid Unicode, without lone surrogates)" if "hex escape" in str(error) else ""
            raise InvalidRequest(f"The body is not valid JSON: {error}{hint}.") from None
        if not isinstance(body, dict):
            raise InvalidRequest("The body must be a JSON object.")
        return body


class _FormRequest(_LimitedRequest):
    """A request whose body is a form. Its files are `Upload`s, its other fields texts."""

    async def _parse(self, chunks: AsyncGenerator[bytes]) -> dict[str, Any]:
        form = await form_bodies.read(self._given, chunks)
        self._body = b"form"  # FastAPI asks for what was parsed only where there is a body
        return form


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
