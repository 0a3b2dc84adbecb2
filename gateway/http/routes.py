"""The route class of all dialects: checks the API key and the rate limits, reads the body, and renders failures."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from gateway.errors import RETRY_AFTER_SECONDS, GatewayError, InvalidRequest, Overloaded
from gateway.fair_sharing import MemoryReservation
from gateway.http import api_keys
from gateway.http.api_keys import Authorize
from gateway.http.bodies import FormRequest, JSONRequest, LimitedRequest
from gateway.http.disconnect import ClientDisconnected
from gateway.http.error_format import ErrorFormat
from gateway.http.forms import MULTIPART_TYPE
from gateway.http.gzip_bodies import is_gzipped
from gateway.http.json_limits import JSONLimits
from gateway.http.rates import RateLimits
from gateway.http.spooled_forms import SpooledFormRequest
from gateway.http.wire_model import UNION_TAG
from gateway.media.spool import SpoolFile
from gateway.media.uploads import Uploads
from gateway.observability.telemetry import Trace
from gateway.settings import Settings


def route_class(
    errors: ErrorFormat,
    *,
    max_json_values: int = 1000,
    forms: bool = False,
    recordings: bool = False,
    authorize: Authorize = api_keys.authorize,
) -> type[APIRoute]:
    """Return a route class whose routes authorize the caller, check its rates, read the body, and render failures.

    `errors` renders failures. A body may hold at most `max_json_values` JSON values. With `forms`, routes also read
    `multipart/form-data` (`gateway.http.forms`); with `recordings`, its files may be larger than memory
    (`gateway.http.spooled_forms`). `authorize` returns the id of the caller or raises a `GatewayError`;
    by default it checks the key against the setting `api_keys`.
    """
    json_limits = JSONLimits(max_json_values)

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            field = self.body_field
            # FastAPI accepts an instance of the body's model as it is.
            validate: Callable[[dict[str, Any]], Any] = (
                field.field_info.annotation.model_validate if field else _identity  # type: ignore[union-attr]
            )

            is_form_route = forms or recordings

            async def handler(request: Request) -> Response:
                trace: Trace = request.state.trace
                trace.route = self.path
                settings: Settings = request.app.state.settings
                try:
                    trace.caller = authorize(request)
                    if request.method in ("POST", "PUT", "PATCH"):
                        limits: RateLimits | None = request.app.state.rates
                        if limits:
                            trace.charge_tokens = limits.charge_tokens
                            await limits.admit(trace.caller, trace.headers)
                        media_type = request.headers.get("content-type", "").lower()
                        is_form = is_form_route and media_type.startswith(MULTIPART_TYPE)
                        trace.reservation = MemoryReservation(request.app.state.request_memory, trace.caller)
                        scope, receive = _with_json_content_type(request.scope), request.receive
                        limited: LimitedRequest[Any]
                        if is_form and recordings and not is_gzipped(request.headers):
                            uploads: Uploads = request.app.state.media.uploads
                            new_spool = partial(_new_spool, uploads, trace)
                            limited = SpooledFormRequest(scope, receive, request.headers, new_spool, uploads.max_bytes)
                        else:
                            limited = (FormRequest if is_form else JSONRequest)(scope, receive, request.headers)
                        await limited.read(
                            settings.max_body_bytes,
                            settings.body_timeout,
                            json_limits,
                            validate,
                            trace.reservation,
                        )
                        request, trace.is_large = limited, limited.is_large
                        trace.body_bytes = limited.body_bytes
                    return await handle(request)
                except (ClientDisconnected, ClientDisconnect):
                    trace.disconnected = True
                    return Response(status_code=499)  # for the log only: the client has disconnected
                except asyncio.CancelledError:
                    # Only the server cancels a request, when it shuts down.
                    trace.record_failure(Overloaded("The service is stopping.", retry_after=RETRY_AFTER_SECONDS))
                except ValidationError as invalid:
                    trace.record_failure(
                        explain_validation_error(invalid.errors(include_url=False, include_input=False)[0])
                    )
                except RequestValidationError as invalid:
                    entry = invalid.errors()[0]
                    trace.record_failure(explain_validation_error(entry, entry["loc"][:1]))
                except GatewayError as error:
                    trace.record_failure(error)
                except Exception:
                    structlog.get_logger("gateway").exception("failed", request_id=trace.request_id)
                    trace.record_failure(GatewayError("The gateway failed because of an internal error."))
                assert trace.error is not None
                return errors.render(trace.error)

            return handler

    return DialectRoute


def _new_spool(uploads: Uploads, trace: Trace) -> SpoolFile:
    """Return a file that is closed when the request of `trace` has been answered."""
    spool = uploads.new_spool(trace.caller)
    trace.cleanup.callback(spool.close)
    return spool


def _with_json_content_type(scope: Scope) -> Scope:
    """Return `scope` with the content type of JSON: `curl -d` sends that of a form, which FastAPI would not parse."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


_MAX_NAME_CHARACTERS = 64
"""Characters of a field name from the body that an error message shows. Such a name may be a megabyte long."""


def _identity(body: dict[str, Any]) -> dict[str, Any]:
    return body


def explain_validation_error(error: Mapping[str, Any], prefix: tuple[int | str, ...] = ()) -> InvalidRequest:
    """Return an error that names the wrong field and what was expected, from one entry of pydantic's `errors()`.

    `prefix` are the parts of the entry's `loc` before the path within the body.
    """
    path = ""
    for part in error["loc"][len(prefix) :]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(UNION_TAG) and part != "[key]":  # pydantic's mark of a wrong key
            shown = part[:_MAX_NAME_CHARACTERS] or "''"
            path += f".{shown}" if path else shown
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return InvalidRequest(f"The field '{path}' is required.", param=path)
    return InvalidRequest(f"Invalid value for '{path}': {message}.", param=path or None)
