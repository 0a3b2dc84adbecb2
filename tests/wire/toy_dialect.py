"""A dialect that shares nothing with OpenAI's: its own bodies, errors, events and header of the key."""

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from gateway.dialects.dialect import Dialect
from gateway.errors import GatewayError
from gateway.http import api_keys, delivery
from gateway.http.delivery import NamedEvent
from gateway.http.error_format import ErrorFormat, error_headers
from gateway.http.media_references import MediaReferences, TurnDraft
from gateway.http.openapi_responses import INFERENCE_FAILURES, ResponseDocs
from gateway.http.routes import route_class
from gateway.http.wire_model import WireModel
from gateway.models.catalog import Catalog
from gateway.operations.chat import Chat, ChatEvent, Message, TextPart, gather
from gateway.operations.text import Delta, Finish

KEY_HEADER = "X-Toy-Key"


class Oops(BaseModel):
    """A failure."""

    oops: str
    where: str | None
    because: str


class Reply(BaseModel):
    """A whole answer."""

    reply: str


class Word(BaseModel):
    """A piece of a streamed answer."""

    word: str


class Line(WireModel):
    """A message: text, and optionally an image."""

    who: str
    says: str
    shows: str | None = None


class Talk(WireModel):
    """A conversation that asks for an answer."""

    engine: str
    lines: list[Line]
    live: bool = False


def _render_body(error: GatewayError) -> bytes:
    return orjson.dumps({"oops": error.code, "where": error.param, "because": error.message})


def _render(error: GatewayError) -> Response:
    return Response(_render_body(error), error.status, error_headers(error), media_type="application/x-toy")


def _render_event(error: GatewayError) -> NamedEvent:
    return NamedEvent("oops", _render_body(error))


def _authorize(request: Request) -> str:
    return api_keys.authenticate(request, request.app.state.settings.api_keys, KEY_HEADER)


TOY_ERRORS = ErrorFormat(_render, _render_event)
_DOCS = ResponseDocs(error_model=Oops, error_body=_render_body)
router = APIRouter(route_class=route_class(TOY_ERRORS, authorize=_authorize))
unprotected = APIRouter()


def _render_word(event: ChatEvent) -> list[NamedEvent]:
    if isinstance(event, Delta) and event.text:
        return [NamedEvent("word", orjson.dumps({"word": event.text}))]
    return [NamedEvent("end", b"{}")] if isinstance(event, Finish) else []


@router.post(
    "/toy/v1/chat/completions",
    responses=_DOCS.responses(
        Reply,
        INFERENCE_FAILURES,
        description="A reply.",
        example={"reply": "Hi"},
        event=Word,
        event_example={"word": "Hi"},
    ),
)
async def talk(body: Talk, request: Request) -> Response:
    """Answer a conversation. The path also fits the pattern of a platform's chats."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get(body.engine)
    media = MediaReferences.of_request(request)
    drafts = [
        TurnDraft(
            Message(role="user" if line.who == "me" else "assistant", content=line.says),
            [TextPart(line.says), media.image(line.shows, param=f"lines[{i}].shows", allow_base64=True)]
            if line.shows
            else [],
        )
        for i, line in enumerate(body.lines)
    ]
    turns = await media.complete_turns(drafts, max_characters=10_000, param="lines")
    events = catalog.run(model, Chat(model=model.name, messages=turns), request.state.trace)
    if body.live:
        return await delivery.sse(request, events, _render_word, TOY_ERRORS.render_event)
    answers, _ = await delivery.whole(request, gather(events))
    return Response(orjson.dumps({"reply": answers[0].text}), media_type="application/json")


@router.get("/toy/v1/broken")
async def broken() -> Response:
    """Fail within a route of the dialect's class."""
    raise ZeroDivisionError("a secret")


@unprotected.get("/toy/v1/unprotected")
async def unprotected_route() -> Response:
    """Fail within a route of no class of the dialect's."""
    raise ZeroDivisionError("a secret")


TOY = Dialect(name="toy", prefixes=("/toy",), routers=(router, unprotected), errors=TOY_ERRORS, stream_events=(Word,))
