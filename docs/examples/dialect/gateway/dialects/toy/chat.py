"""POST /toy/v1/chat/completions: the next line of a conversation."""

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from gateway.dialects.toy.errors import TOY_DOCS, TOY_ERRORS
from gateway.http import api_keys, delivery
from gateway.http.delivery import NamedEvent
from gateway.http.json_limits import check_text_length
from gateway.http.media_references import MediaReferences, TurnDraft
from gateway.http.openapi_responses import INFERENCE_FAILURES
from gateway.http.routes import route_class
from gateway.http.wire_model import WireModel
from gateway.models.catalog import Catalog
from gateway.operations.chat import Chat, ChatEvent, Message, TextPart, gather
from gateway.operations.text import Delta

KEY_HEADER = "X-Toy-Key"
MAX_LINES = 2000
MAX_JSON_VALUES = 10_000
"""How many JSON values a body may have, counted before it is parsed: a few for each line."""


class Line(WireModel):
    """A message: a text, and optionally an image as a URL or in base64."""

    who: str
    says: str
    shows: str | None = None


class Talk(WireModel):
    """A conversation that asks for an answer; `live` asks for a stream."""

    engine: str
    lines: list[Line] = Field(min_length=1, max_length=MAX_LINES)
    live: bool = False


class Reply(BaseModel):
    """A whole answer."""

    reply: str


class Word(BaseModel):
    """An event of a stream: a piece of the answer."""

    word: str


class End(BaseModel):
    """The last event of a complete stream."""


def _authorize(request: Request) -> str:
    return api_keys.authenticate(request, request.app.state.settings.api_keys, KEY_HEADER)


def _render_event(event: ChatEvent) -> list[NamedEvent]:
    if isinstance(event, Delta) and event.text:
        return [NamedEvent("word", orjson.dumps({"word": event.text}))]
    return []


router = APIRouter(route_class=route_class(TOY_ERRORS, authorize=_authorize, max_json_values=MAX_JSON_VALUES))
_RESPONSES = TOY_DOCS.responses(
    Reply,
    INFERENCE_FAILURES,
    description="A reply.",
    example={"reply": "Hi"},
    event=Word,
    event_example={"word": "Hi"},
)


@router.post("/toy/v1/chat/completions", responses=_RESPONSES)
async def talk(body: Talk, request: Request) -> Response:
    """Answer a conversation."""
    catalog: Catalog = request.app.state.catalog
    model = catalog.get(body.engine, Chat)
    limit = request.app.state.settings.prompt_max_characters
    check_text_length(sum(len(line.says) for line in body.lines), limit, param="lines")
    media = MediaReferences.of_request(request)
    drafts = []
    for index, line in enumerate(body.lines):
        turn = Message(role="user" if line.who == "me" else "assistant", content=line.says)
        image = media.image(line.shows, param=f"lines[{index}].shows", allow_base64=True) if line.shows else None
        drafts.append(TurnDraft(turn, [TextPart(line.says), image] if image else []))
    turns = await media.complete_turns(drafts, max_characters=limit, param="lines")
    chat = Chat(model=model.name, messages=turns, non_streaming=not body.live)
    events = catalog.run(model, chat, request.state.trace)
    if body.live:
        return await delivery.sse(
            request, events, _render_event, TOY_ERRORS.render_event, done=NamedEvent("end", b"{}")
        )
    answers, _ = await delivery.whole(request, gather(events))
    return Response(orjson.dumps({"reply": answers[0].text}), media_type="application/json")
