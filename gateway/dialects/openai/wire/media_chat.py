"""Chats with models that generate images or videos instead of text."""

from collections.abc import AsyncGenerator

from fastapi import Request

from gateway.dialects.openai.wire import image_chat, video_chat
from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.text import Delta, Finish


def is_media_chat(model: Model) -> bool:
    """Return whether chats with this model generate images or videos."""
    return image_chat.is_image_chat(model) or video_chat.is_video_chat(model)


async def open_answer(
    body: CreateChatCompletionRequest, model: Model, request: Request, *, progress: bool, allow_base64: bool = False
) -> AsyncGenerator[Delta | Finish]:
    """Return the events of the answer to a conversation, which run the model when they are read.

    With `progress`, the answer begins with lines that show it. With `allow_base64`, images may be plain base64. Raises
    as `image_chat.parse_request` does.
    """
    catalog: Catalog = request.app.state.catalog
    if image_chat.is_image_chat(model):
        images = await image_chat.parse_request(body, model, request, allow_base64=allow_base64)
        return image_chat.run(catalog, model, images, request, progress=progress)
    video = await video_chat.parse_request(body, model, request, allow_base64=allow_base64)
    return video_chat.run(catalog, model, video, request, progress=progress)
