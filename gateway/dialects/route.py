"""What every dialect needs of HTTP: who may call and how often, how a body is read, and failures in its own shape."""

import asyncio
import hmac
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, SecretStr, ValidationError
from pydantic_core import CoreSchema
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from gateway import rate_rules
from gateway.errors import RETRY_AFTER_SECONDS, GatewayError, InvalidRequest, Overloaded, Unauthorized
from gateway.fair_sharing import MemoryReservation
from gateway.http.bodies import FormRequest, JSONRequest, LimitedRequest
from gateway.http.disconnect import ClientDisconnected
from gateway.http.forms import MULTIPART_TYPE as FORM
from gateway.http.json_limits import JSONLimits
from gateway.http.rates import RateLimits
from gateway.observability.telemetry import Trace
from gateway.settings import Settings

RenderError: TypeAlias = Callable[[GatewayError], Response]
Authorize: TypeAlias = Callable[[Request], str]
Item = TypeVar("Item")

UNION_TAG = "·"
"""First character of union tags, which pydantic puts into the path of an error and clients must not see."""


# Those of pydantic's core that know the option.
_CONTAINERS = frozenset({"list", "deque", "tuple", "set", "frozenset", "dict", "frozendict", "ordered-dict", "counter"})


def _fail_fast(schema: Any) -> None:
    """Let the first error end the check of every container in a schema of pydantic's core."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _fail_fast(part)
    elif isinstance(schema, dict):
        kind = schema.get("type")  # in a table of fields, the schema of the one of this name
        if isinstance(kind, str) and kind in _CONTAINERS:
            schema["fail_fast"] = True
        for name, part in schema.items():
            if not isinstance(kind, str) or name not in ("metadata", "serialization"):
                _fail_fast(part)


class WireModel(BaseModel):
    """A body as a document defines it: types are taken at their word, unknown fields are ignored.

    The first wrong item of a list or an object ends its check: a million errors would take minutes and gigabytes.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema


def yield_gil(item: Item) -> Item:
    """Validate nothing. Pydantic gives the interpreter up only where it calls Python: here, between items of a list."""
    return item


def route_class(
    render_error: RenderError, *, values: int = 1000, forms: bool = False, authorize: Authorize | None = None
) -> type[APIRoute]:
    """Return a route class whose routes check the key and the caller's rates, read JSON strictly, and render failures.

    `values` is how many JSON values a body may hold. With `forms` they read `multipart/form-data`, too
    (`gateway.http.forms`). `authorize` says who the caller is (`check_key`) or raises a `GatewayError`; unless it is
    given, the setting `api_keys` says who may call.
    """
    let_pass = authorize or _authorize
    bounds = JSONLimits(values)

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            field = self.body_field
            # FastAPI takes an instance of the body's model as it is.
            understand: Callable[[dict[str, Any]], Any] = (
                field.field_info.annotation.model_validate if field else _identity  # type: ignore[union-attr]
            )

            async def handler(request: Request) -> Response:
                trace: Trace = request.state.trace
                trace.route = self.path
                settings: Settings = request.app.state.settings
                try:
                    trace.caller = let_pass(request)
                    if request.method in ("POST", "PUT", "PATCH"):
                        limits: RateLimits | None = request.app.state.rates
                        if limits:
                            trace.charge_tokens = limits.charge_tokens
                            await limits.admit(trace.caller, trace.headers)
                        form = forms and request.headers.get("content-type", "").lower().startswith(FORM)
                        kind: type[LimitedRequest[Any]] = FormRequest if form else JSONRequest
                        trace.reservation = MemoryReservation(request.app.state.held, trace.caller)
                        reading = kind(_with_json_content_type(request.scope), request.receive, request.headers)
                        await reading.read(
                            settings.max_body_bytes,
                            settings.body_timeout,
                            bounds,
                            understand,
                            trace.reservation,
                        )
                        request, trace.is_large = reading, reading.is_large
                        trace.body_bytes = reading.body_bytes
                    return await handle(request)
                except (ClientDisconnected, ClientDisconnect):
                    trace.disconnected = True
                    return Response(status_code=499)  # nobody reads it; the log shows it
                except asyncio.CancelledError:
                    # Only the server itself cancels a request, when it stops before the request is done.
                    trace.record_failure(Overloaded("The service is stopping.", retry_after=RETRY_AFTER_SECONDS))
                except ValidationError as invalid:
                    trace.record_failure(_explain(invalid.errors(include_url=False, include_input=False)[0], ()))
                except RequestValidationError as invalid:
                    trace.record_failure(_explain(invalid.errors()[0], invalid.errors()[0]["loc"][:1]))
                except GatewayError as error:
                    trace.record_failure(error)
                except Exception:
                    structlog.get_logger("gateway").exception("failed", request_id=trace.request_id)
                    trace.record_failure(GatewayError("The gateway failed on this request."))
                assert trace.error is not None
                return render_error(trace.error)

            return handler

    return DialectRoute


def _authorize(request: Request) -> str:
    settings: Settings = request.app.state.settings
    return authenticate(request, settings.api_keys)


def authenticate(request: Request, keys: Collection[SecretStr]) -> str:
    """Let a request pass when there are no `keys` or it bears one of them, and return what stands for its caller.

    That is its key, and its address where there are no `keys`: one that nobody has given out would be another caller
    with every request. Raises `Unauthorized`.
    """
    if not keys:
        return rate_rules.caller_of_address(request.client.host if request.client else None)
    return rate_rules.caller_of_key(match_api_key(request, keys))


def match_api_key(request: Request, keys: Collection[SecretStr]) -> str:
    """Return which of these keys a request bears. Raises `Unauthorized`."""
    header = next((value for name, value in request.headers.raw if name == b"authorization"), b"")
    scheme, _, given = header.partition(b" ")
    given = given.strip(b" \t")
    if scheme.lower() != b"bearer" or not given:
        raise Unauthorized("This service asks for a key: send the header 'Authorization: Bearer YOUR_KEY'.")
    found = None
    for key in keys:
        # Every key is compared, each in constant time, so that time tells nothing about them.
        text = key.get_secret_value()
        same = [hmac.compare_digest(given, written) for written in _key_encodings(text)]
        found = text if any(same) else found
    if found is None:
        raise Unauthorized("The key of the header 'Authorization' is not known here.")
    return found


def _key_encodings(key: str) -> list[bytes]:
    """How clients send a key: a header holds bytes, which beyond ASCII are UTF-8 for most, and Latin-1 for some."""
    ways = [key.encode()]
    if not key.isascii():
        with suppress(UnicodeEncodeError):
            ways.append(key.encode("latin-1"))
    return ways


def _with_json_content_type(scope: Scope) -> Scope:
    """FastAPI parses only what calls itself JSON, and `curl -d` says form data unless told otherwise."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


_MAX_NAME_CHARACTERS = 64
"""Characters of a caller's own name that are shown in a path: it may be a megabyte long."""


def _identity(body: dict[str, Any]) -> dict[str, Any]:
    return body


def _explain(error: Mapping[str, Any], before: tuple[int | str, ...]) -> InvalidRequest:
    """Say which field is wrong and what was expected, from one of pydantic's errors.

    `before` is what stands before the field in its path.
    """
    path = ""
    for part in error["loc"][len(before) :]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(UNION_TAG) and part != "[key]":  # pydantic's word for a wrong key, which it follows
            shown = part[:_MAX_NAME_CHARACTERS] or "''"
            path += f".{shown}" if path else shown
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return InvalidRequest(f"The field '{path}' is required.", param=path)
    return InvalidRequest(f"Invalid value for '{path}': {message}.", param=path or None)
