"""Parsing of chat messages into the turns of a conversation."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.dialects.openai.wire import tools
from gateway.dialects.openai.wire.messages import ContentPart, File, InputAudio, Message
from gateway.dialects.openai.wire.tools import CustomTool, FunctionCall
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.json_limits import check_text_length
from gateway.http.media_references import MediaReferences, PartReference, Reference, TurnDraft
from gateway.http.offload import offload_if_large
from gateway.operations.chat import Message as Turn
from gateway.operations.chat import Role, TextPart

# Chat templates that are older than OpenAI's renamed roles have only the old names.
ROLES: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


MAX_REFERENCES = 64
"""Images, files and audio parts of one conversation: each may have to be fetched and decoded."""


class MessageParser:
    """Turns the messages of a chat request into the turns of a conversation, with everything they refer to loaded."""

    def __init__(
        self,
        references: MediaReferences,
        *,
        supports_images: bool,
        max_characters: int,
        allow_base64: bool = False,
    ) -> None:
        """`supports_images`: the model accepts images; for other models none is fetched, and a request with one fails.

        `max_characters` limits all texts of the conversation together. With `allow_base64`, images may be plain base64,
        as files always may.
        """
        self._references = references
        self._trace = references.trace
        self._max_characters = max_characters
        self._supports_images = supports_images
        self._allow_base64 = allow_base64

    async def parse(self, messages: list[Message]) -> tuple[Turn, ...]:
        """Return the turns.

        Raises `InvalidRequest` and `UnsupportedOption` with the path of what is wrong, `RequestTooLarge`, and what
        `MediaReferences.load` raises.
        """
        drafts = await offload_if_large(self._trace, lambda: self._drafts(messages))
        return await self._references.complete_turns(drafts, max_characters=self._max_characters, param="messages")

    def _drafts(self, messages: list[Message]) -> list[TurnDraft]:
        contents = (message.content for message in messages if isinstance(message.content, list))
        references = sum(part.type != "text" for content in contents for part in content)
        references += sum(message.audio is not None and not message.content for message in messages)
        if references > MAX_REFERENCES:
            raise InvalidRequest(
                f"A conversation may have at most {MAX_REFERENCES} images and files, not {references}.",
                param="messages",
            )
        # Cheap bounds first: a body has at most as many characters as bytes, and half as many JSON values.
        if self._trace.body_bytes > 2 * tools.ARGUMENT_LIMITS.max_values:
            tools.check_arguments(_function_calls(messages))
        if self._trace.body_bytes > self._max_characters:
            check_text_length(sum(map(_count_characters, messages)), self._max_characters, param="messages")
        return [self._turn(message, f"messages[{i}]") for i, message in enumerate(messages)]

    def _turn(self, message: Message, path: str) -> TurnDraft:
        """Return the turn of a message. Its parts become the turn's content once they are loaded."""
        calls = []
        for i, call in enumerate(message.tool_calls or ()):
            if isinstance(call, CustomTool):
                raise call.unsupported_error(f"{path}.tool_calls[{i}]")
            calls.append(tools.parse_call(call.function, call.id or ""))
        if message.function_call:
            calls.append(tools.parse_call(message.function_call))
        if message.content is None and message.role not in ("assistant", "function"):
            raise InvalidRequest(f"'{path}.content' must be a string or a list of parts.", param=f"{path}.content")
        content = message.content or ""
        turn = Turn(
            role=ROLES[message.role],
            content=content if isinstance(content, str) else "",
            name=message.name,
            tool_call_id=message.tool_call_id,
            tool_calls=tuple(calls),
            reasoning=message.reasoning_content,
        )
        if message.audio and message.role == "assistant" and not content:
            return TurnDraft(turn, [self._references.spoken_answer(message.audio.id, param=f"{path}.audio.id")])
        if isinstance(content, str):
            return TurnDraft(turn)
        return TurnDraft(turn, [self._part(part, f"{path}.content[{i}]") for i, part in enumerate(content)])

    def _part(self, part: ContentPart, path: str) -> TextPart | PartReference:
        match part.type:
            case "text" | "refusal":
                return TextPart(_required(getattr(part, part.type), f"{path}.{part.type}"))
            case "image_url":
                image = _required(part.image_url, f"{path}.image_url")
                if not self._supports_images:
                    raise UnsupportedOption(f"'{path}': this model does not support images.", param=path)
                url = image if isinstance(image, str) else image.url
                return self._references.image(url, param=f"{path}.image_url", allow_base64=self._allow_base64)
            case "file":
                return self._document(_required(part.file, f"{path}.file"), f"{path}.file")
            case "input_audio":
                return self._audio(_required(part.input_audio, f"{path}.input_audio"), path)
            case _:
                raise UnsupportedOption(f"'{path}': parts of type '{part.type}' are not supported yet.", param=path)

    def _audio(self, audio: InputAudio, path: str) -> Reference[TextPart]:
        if not self._references.can_transcribe:
            raise UnsupportedOption(f"'{path}': audio is not supported, as no model transcribes it.", param=path)
        return self._references.audio(audio.data, audio.format, param=f"{path}.input_audio.data")

    def _document(self, file: File, path: str) -> Reference[TextPart]:
        if file.file_id is not None and file.file_data is None:
            raise UnsupportedOption(
                f"'{path}.file_id': this service does not store files; send the file in 'file_data'.",
                param=f"{path}.file_id",
            )
        data = _required(file.file_data, f"{path}.file_data")
        return self._references.document(data, filename=file.filename, param=f"{path}.file_data")


def _function_calls(messages: Iterable[Message]) -> Iterator[FunctionCall]:
    """Yield the function calls of earlier turns."""
    for message in messages:
        yield from (call.function for call in message.tool_calls or () if not isinstance(call, CustomTool))
        if message.function_call:
            yield message.function_call


def _count_characters(message: Message) -> int:
    content = message.content or ""
    written = content if isinstance(content, str) else "".join(part.text or part.refusal or "" for part in content)
    texts = (written, message.reasoning_content, message.name, message.tool_call_id)
    called = sum(len(call.arguments) + len(call.name) for call in _function_calls((message,)))
    return called + sum(len(text) for text in texts if text)


def _required(value: Any, path: str) -> Any:
    if value is None:
        raise InvalidRequest(f"The field '{path}' is required.", param=path)
    return value
