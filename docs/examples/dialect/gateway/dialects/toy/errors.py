"""The error format: as the body of a response, and as the last event of a stream."""

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.http.delivery import NamedEvent
from gateway.http.error_format import ErrorFormat, error_headers
from gateway.http.openapi_responses import ResponseDocs

MEDIA_TYPE = "application/x-toy"


class Oops(BaseModel):
    """A failure."""

    oops: str
    where: str | None
    because: str


def _render_body(error: GatewayError) -> bytes:
    return orjson.dumps({"oops": error.code, "where": error.param, "because": error.message})


def _render(error: GatewayError) -> Response:
    return Response(_render_body(error), error.status, error_headers(error), media_type=MEDIA_TYPE)


def _render_event(error: GatewayError) -> NamedEvent:
    return NamedEvent("oops", _render_body(error))


TOY_ERRORS = ErrorFormat(_render, _render_event)
TOY_DOCS = ResponseDocs(error_model=Oops, error_body=_render_body, error_media_type=MEDIA_TYPE)
