"""Chats with image models, in the manner of `gpt-4o-image`: the answer is an image in Markdown.

Seed: the concise reference's chat with images. Other services that generate images in chats have the same
progress lines.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from fastapi import Request

from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.dialects.openai.wire.media_prompts import ProgressLines, last_prompt, reject_text_options, text_of
from gateway.dialects.openai.wire.message_parser import MessageParser
from gateway.errors import GatewayError
from gateway.http.media_references import MediaReferences
from gateway.http.request_images import RequestImages
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.chat import Chat, ImagePart, Message
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, Image, Progress
from gateway.operations.text import Delta, Finish

_MARKDOWN_IMAGE = re.compile(r"!\[image\]\(([^()\s]++)\)")
"""An image in an earlier answer. The pattern never backtracks: matching takes linear time."""
_MAX_URLS = 64
"""URLs of a conversation that are looked up, as many as it may have images."""
_MAX_SEARCHED_CHARACTERS = 1_000_000
"""Characters of a conversation that are searched for URLs, the latest answers first."""


def is_image_chat(model: Model) -> bool:
    """Return whether chats with this model generate images."""
    return Chat.operation not in model.operations and GenerateImage.operation in model.operations


async def parse_request(
    body: CreateChatCompletionRequest, model: Model, request: Request, *, allow_base64: bool = False
) -> GenerateImage:
    """Return the operation of a conversation: its last message is the prompt, and its latest images are edited.

    With `allow_base64`, images may be plain base64. Raises `InvalidRequest`, `UnsupportedOption`, `RequestTooLarge` and
    `Overloaded`, and `ClientDisconnected` as soon as the client disconnects.
    """
    reject_text_options(body, "image")
    supports_images = "edit_image" in model.operations
    parser = MessageParser(
        MediaReferences.of_request(request),
        supports_images=supports_images,
        allow_base64=allow_base64,
        max_characters=request.app.state.settings.prompt_max_characters,
    )
    turns = await parser.parse(body.messages)
    options: dict[str, Any] = {"model": model.name, "prompt": last_prompt(turns, "image"), "n": body.n or 1}
    if body.seed is not None:
        options["seed"] = body.seed % 2**63  # the seed of a chat may be negative
    images = await _latest_images(turns, RequestImages(request)) if supports_images else ()
    return EditImage(images=images, **options) if images else GenerateImage(**options)


async def run(
    catalog: Catalog, model: Model, operation: GenerateImage, request: Request, *, progress: bool
) -> AsyncGenerator[Delta | Finish]:
    """Run the model, store its images, and yield one answer for each image.

    With `progress`, for streams, the first answer begins with lines that show the progress of all images, until its own
    is done. Where a whole response fails, none of its images stays stored.
    """
    images, is_stream = RequestImages(request), progress
    lines = ProgressLines()
    try:
        async with aclosing(catalog.run(model, operation, request.state.trace)) as generated:
            async for event in generated:
                if isinstance(event, Image):
                    url = await images.store(event.data, operation.output_format)
                    gap = "\n" if lines.reported and event.index == 0 else ""
                    yield Delta(event.index, f"{gap}![image]({url})")
                    yield Finish(event.index, "stop")
                    # Nothing can be added to an answer that has ended, though other images may still take long.
                    progress = progress and event.index != 0
                elif progress and isinstance(event, Progress) and (line := lines.line(event)):
                    yield Delta(0, line)
    except GatewayError:
        if not is_stream:  # a stream has sent their URLs already
            await images.discard()
        raise


async def _latest_images(turns: Sequence[Message], stored: RequestImages) -> tuple[bytes, ...]:
    """Return the images of the latest message with any: those of the caller, or one that an answer links to."""
    urls, characters = _MAX_URLS, _MAX_SEARCHED_CHARACTERS
    for turn in reversed(turns):
        if turn.role == "assistant":
            text = text_of(turn)[:characters]
            characters -= len(text)
            for found in islice(_MARKDOWN_IMAGE.finditer(text), urls):
                urls -= 1
                if image := await stored.read(found[1]):
                    return (image,)
        elif images := tuple(part.data for part in turn.content if isinstance(part, ImagePart)):
            return images
    return ()
