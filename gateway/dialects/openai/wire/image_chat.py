"""Chats with models that draw, in the manner of `gpt-4o-image`: the answer is a picture in Markdown.

Seed: the concise reference's chat with pictures. The lines of progress are those of services that draw in chats.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from fastapi import Request

from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.dialects.openai.wire.images import MAX_PROMPT_CHARACTERS
from gateway.dialects.openai.wire.message_parser import MessageParser
from gateway.errors import GatewayError, InvalidRequest, UnsupportedOption
from gateway.http.media_references import MediaReferences
from gateway.http.request_images import RequestImages
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.chat import ImagePart, Message, TextPart
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, Image, Progress
from gateway.operations.text import Delta, Finish

_PROGRESS_STEP = 0.1
"""Progress is told each time that another part of this size is done."""
_ROUNDING = 1e-4
"""Of fractions, which are float32."""
_MARKDOWN_IMAGE = re.compile(r"!\[image\]\(([^()\s]++)\)")
"""An address ends where another could begin, so that no text takes longer than its length."""
_MAX_URLS = 64
"""Addresses of a conversation that are looked at, as many as it may hold pictures."""
_MAX_SEARCHED_CHARACTERS = 1_000_000
"""Characters of a conversation that are searched for them, the latest answers first."""


def is_image_chat(model: Model) -> bool:
    """Whether a chat with this model is one with a model that draws."""
    return "chat" not in model.operations and "generate_image" in model.operations


async def parse_request(
    body: CreateChatCompletionRequest, model: Model, request: Request, *, allow_base64: bool = False
) -> GenerateImage:
    """Return what the conversation asks for: its last message says what to draw, into its latest pictures if any.

    With `bare`, pictures may be base64.

    Raises `InvalidRequest` and `UnsupportedOption`, and `ClientGone` as soon as the client hangs up.
    """
    _reject_text_options(body)
    supports_images = "edit_image" in model.operations
    parser = MessageParser(
        MediaReferences.of_request(request),
        supports_images=supports_images,
        allow_base64=allow_base64,
        max_characters=request.app.state.settings.prompt_max_characters,
    )
    turns = await parser.parse(body.messages)
    last = turns[-1]
    prompt = _text_of(last).strip()
    if last.role != "user" or not prompt:
        raise InvalidRequest(
            "The last message must be the user's, and say what to draw.", param=f"messages[{len(turns) - 1}]"
        )
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"What to draw may be said in {MAX_PROMPT_CHARACTERS} characters.", param=f"messages[{len(turns) - 1}]"
        )
    options: dict[str, Any] = {"model": model.name, "prompt": prompt, "n": body.n or 1}
    if body.seed is not None:
        options["seed"] = body.seed % 2**63  # chats take negative ones, too
    pictures = await _latest_images(turns, RequestImages(request)) if supports_images else ()
    return EditImage(images=pictures, **options) if pictures else GenerateImage(**options)


async def run(
    catalog: Catalog, model: Model, asked: GenerateImage, request: Request, *, progress: bool
) -> AsyncGenerator[Delta | Finish]:
    """Ask the model, keep what it draws, and yield the answers: one for each picture.

    With `progress`, lines in the first answer tell how far all of them are, until it is done. That is for streams:
    of a whole answer that fails, no picture is kept.
    """
    keeping, streams = RequestImages(request), progress
    told = 0.0
    try:
        async with aclosing(catalog.run(model, asked, request.state.trace)) as drawn:
            async for event in drawn:
                if isinstance(event, Image):
                    url = await keeping.url(event.data, asked.output_format)
                    gap = "\n" if told and event.index == 0 else ""
                    yield Delta(event.index, f"{gap}![image]({url})")
                    yield Finish(event.index, "stop")
                    # The other pictures may take long yet, but to an answer that has ended nothing can be added.
                    progress = progress and event.index != 0
                elif progress and isinstance(event, Progress) and event.fraction > told + _PROGRESS_STEP - _ROUNDING:
                    told = event.fraction
                    yield Delta(0, f"> Progress: {told:.1%}\n")
    except GatewayError:
        if not streams:  # a stream has told of them already
            await keeping.discard()
        raise


def _reject_text_options(body: CreateChatCompletionRequest) -> None:
    """Raise `UnsupportedOption` for what only a model that writes can do."""
    structured = body.response_format is not None and body.response_format.type != "text"
    for name, asked in (
        ("tools", bool(body.tools) and body.tool_choice != "none"),
        ("functions", body.uses_legacy_functions and body.function_call != "none"),
        ("response_format", structured),
        ("structured_outputs", body.structured_outputs is not None),
        ("logprobs", bool(body.logprobs)),
        ("continue_final_message", bool(body.continue_final_message)),
    ):
        if asked:
            raise UnsupportedOption(f"This model draws; it has no '{name}'.", param=name)


def _text_of(turn: Message) -> str:
    if isinstance(turn.content, str):
        return turn.content
    return "\n".join(part.text for part in turn.content if isinstance(part, TextPart))


async def _latest_images(turns: Sequence[Message], keeping: RequestImages) -> tuple[bytes, ...]:
    """The pictures of the latest message that has some: those that somebody sent, or one that was drawn here before."""
    left, characters = _MAX_URLS, _MAX_SEARCHED_CHARACTERS
    for turn in reversed(turns):
        if turn.role == "assistant":
            text = _text_of(turn)[:characters]
            characters -= len(text)
            for found in islice(_MARKDOWN_IMAGE.finditer(text), left):
                left -= 1
                if drawn := await keeping.read_stored(found[1]):
                    return (drawn,)
        elif pictures := tuple(part.data for part in turn.content if isinstance(part, ImagePart)):
            return pictures
    return ()
