"""Chats with video models: the answer is a link to a video in Markdown."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from fastapi import Request

from gateway.dialects.openai.wire import video_inputs
from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.dialects.openai.wire.media_prompts import ProgressLines, last_prompt, reject_text_options
from gateway.dialects.openai.wire.message_parser import MessageParser
from gateway.errors import UnsupportedOption
from gateway.http.media_references import MediaReferences
from gateway.http.request_images import RequestImages
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.chat import Chat, ImagePart
from gateway.operations.generate_video import CONTENT_TYPE, GenerateVideo, Video
from gateway.operations.operation import Progress
from gateway.operations.text import Delta, Finish


def is_video_chat(model: Model) -> bool:
    """Return whether chats with this model generate videos."""
    return Chat.operation not in model.operations and GenerateVideo.operation in model.operations


async def parse_request(
    body: CreateChatCompletionRequest, model: Model, request: Request, *, allow_base64: bool = False
) -> GenerateVideo:
    """Return the operation of a conversation: its last message is the prompt, and an image in it the first frame.

    With `allow_base64`, images may be plain base64. Raises as `image_chat.parse_request` does.
    """
    reject_text_options(body, "video")
    if (body.n or 1) > 1:
        raise UnsupportedOption("This model generates one video per request: reduce 'n'.", param="n")
    parser = MessageParser(
        MediaReferences.of_request(request),
        supports_images="image" in model.card.video.references,
        allow_base64=allow_base64,
        max_characters=request.app.state.settings.prompt_max_characters,
    )
    turns = await parser.parse(body.messages)
    limits, size = model.card.video, model.card.image.default_size
    assert size is not None  # the card of a video model has one
    operation = GenerateVideo(
        model=model.name,
        prompt=last_prompt(turns, "video"),
        width=size[0],
        height=size[1],
        num_frames=limits.default_num_frames,
        fps=limits.default_fps,
        seconds=limits.seconds(limits.default_num_frames, limits.default_fps),
        seed=None if body.seed is None else body.seed % 2**63,  # the seed of a chat may be negative
    )
    param = f"messages[{len(turns) - 1}]"
    images = [part.data for part in turns[-1].content if isinstance(part, ImagePart)]
    if len(images) > 1:
        raise UnsupportedOption(f"A video starts from one image, not from {len(images)}.", param=param)
    if not images:
        return operation
    return replace(operation, image=await video_inputs.first_frame(images[0], size, request, param))


async def run(
    catalog: Catalog, model: Model, operation: GenerateVideo, request: Request, *, progress: bool
) -> AsyncGenerator[Delta | Finish]:
    """Run the model, store its video, and yield the answer. With `progress`, for streams, it begins with lines that
    show the progress.
    """
    lines = ProgressLines()
    async with aclosing(catalog.run(model, operation, request.state.trace)) as generated:
        async for event in generated:
            if isinstance(event, Video):
                url = await RequestImages(request).store_file(event.data, CONTENT_TYPE)
                gap = "\n" if lines.reported else ""
                yield Delta(0, f"{gap}[video]({url})")
                yield Finish(0, "stop")
            elif progress and isinstance(event, Progress) and (line := lines.line(event)):
                yield Delta(0, line)
