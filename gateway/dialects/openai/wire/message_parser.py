"""How a conversation is read: what its messages refer to is fetched, and it becomes turns."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from gateway.dialects.openai.wire import tools
from gateway.dialects.openai.wire.messages import ContentPart, File, InputAudio, Message
from gateway.dialects.openai.wire.tools import CustomTool, FunctionCall
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.json_limits import check_text_length
from gateway.http.offload import LARGE_BYTES, OffloadContext, offload_if_large
from gateway.http.request_images import RequestImages
from gateway.media.loader import MediaLoader
from gateway.operations.chat import ImagePart, Part, Role, TextPart
from gateway.operations.chat import Message as Turn

# Templates written before OpenAI renamed the roles know only the old names.
ROLES: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


TranscribeAudio: TypeAlias = Callable[[bytes], Awaitable[str]]

MAX_REFERENCES = 64
"""Pictures and files of one conversation: each may have to be fetched and decoded."""


@dataclass(slots=True, eq=False)
class _Reference:
    """A part that has to be fetched and read first.

    Of what is `heard` one after the other is: a sound may be large when it is decoded, and a model that writes it down
    takes its time.
    """

    fetch: Callable[[], Awaitable[Part]]
    is_audio: bool = False
    resolved: Part | None = None

    async def resolve(self) -> None:
        self.resolved = await self.fetch()


_Draft: TypeAlias = tuple[Turn, list[TextPart | _Reference]]


class MessageParser:
    """Turns messages of the wire into turns of a conversation; what they refer to is fetched."""

    def __init__(
        self,
        media: MediaLoader,
        *,
        sees: bool,
        write_down: TranscribeAudio | None,
        bare: bool = False,
        keeping: RequestImages | None = None,
        longest: int,
        asked: OffloadContext,
    ) -> None:
        """`sees`: the model looks at pictures; those of one that does not are not even fetched.

        `write_down` gives the words of a sound (mono float32 samples, 16,000 a second), where a model does that. With
        `bare`, pictures may be bare base64, as files may; with `keeping`, those that were drawn here. `longest` is how
        many characters all texts may have. A conversation that `asked` calls large is read beside the loop.
        """
        self._max_characters = longest
        self._trace = asked
        self._media = media
        self._allowance = media.new_budget(asked.caller)
        self._supports_images = sees
        self._transcribe = write_down
        self._allow_base64 = bare
        self._fetch_image = keeping.load_image if keeping else media.load_image

    async def parse(
        self,
        messages: list[Message],
        watched: Callable[[Coroutine[Any, Any, None]], Awaitable[None]] = lambda work: work,
    ) -> tuple[Turn, ...]:
        """Return the turns. Raises `InvalidRequest` and `UnsupportedOption` with the path of what is wrong.

        What has to be waited for is, through `watched`; most conversations are only text.
        """
        drafts = await offload_if_large(self._trace, lambda: self._drafts(messages))
        if found := [part for _, parts in drafts for part in parts if isinstance(part, _Reference)]:
            await watched(self._resolve(found))
            # Documents may have far more text than the messages themselves.
            characters = sum(len(part.resolved.text) for part in found if isinstance(part.resolved, TextPart))
            check_text_length(characters, self._max_characters, param="messages")
            # What was fetched makes a small body a large request: it is rendered, and packed into tensors.
            pictures = sum(len(part.resolved.data) for part in found if isinstance(part.resolved, ImagePart))
            self._trace.is_large |= characters + pictures > LARGE_BYTES
            if self._trace.reservation:
                self._trace.reservation.acquire(characters + pictures)
        return await offload_if_large(self._trace, lambda: _join_drafts(drafts))

    async def _resolve(self, references: list[_Reference]) -> None:
        """Fetch and read what the messages refer to side by side; the first failure ends all. Then hear the sounds."""
        with self._allowance as allowance:
            tasks = [asyncio.create_task(reference.resolve()) for reference in references if not reference.is_audio]
            try:
                await allowance.run_with_timeout(self._media.request_timeout, asyncio.gather(*tasks), param="messages")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for reference in references:
                if reference.is_audio:
                    await reference.resolve()

    def _drafts(self, messages: list[Message]) -> list[_Draft]:
        contents = (message.content for message in messages if isinstance(message.content, list))
        references = sum(part.type != "text" for content in contents for part in content)
        if references > MAX_REFERENCES:
            raise InvalidRequest(
                f"A conversation may hold {MAX_REFERENCES} pictures and files, not {references}.", param="messages"
            )
        # No body holds more characters than bytes, nor more values than half as many.
        if self._trace.body_bytes > 2 * tools.ARGUMENT_BOUNDS.values:
            tools.check_arguments(_function_calls(messages))
        if self._trace.body_bytes > self._max_characters:
            check_text_length(sum(map(_count_characters, messages)), self._max_characters, param="messages")
        return [self._turn(message, f"messages[{i}]") for i, message in enumerate(messages)]

    def _turn(self, message: Message, path: str) -> _Draft:
        """A turn, and its parts where it has any: they are put into it when its references are resolved."""
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
        if isinstance(content, str):
            return turn, []
        return turn, [self._part(part, f"{path}.content[{i}]") for i, part in enumerate(content)]

    def _part(self, part: ContentPart, path: str) -> TextPart | _Reference:
        match part.type:
            case "text" | "refusal":
                return TextPart(_required(getattr(part, part.type), f"{path}.{part.type}"))
            case "image_url":
                image = _required(part.image_url, f"{path}.image_url")
                if not self._supports_images:
                    raise UnsupportedOption(f"'{path}': this model does not look at pictures.", param=path)
                url = image if isinstance(image, str) else image.url
                return _Reference(lambda: self._resolve_image(url, f"{path}.image_url"))
            case "file":
                return self._document(_required(part.file, f"{path}.file"), f"{path}.file")
            case "input_audio":
                return self._audio(_required(part.input_audio, f"{path}.input_audio"), path)
            case _:
                raise UnsupportedOption(f"'{path}': parts of type '{part.type}' are not supported yet.", param=path)

    async def _resolve_image(self, url: str, path: str) -> ImagePart:
        found = await self._fetch_image(url, bare=self._allow_base64, param=path, allowance=self._allowance)
        return ImagePart(found.data)

    def _audio(self, audio: InputAudio, path: str) -> _Reference:
        write_down = self._transcribe
        if write_down is None:
            raise UnsupportedOption(f"'{path}': no model is served that writes down what is said.", param=path)

        async def hear() -> TextPart:
            sound = await self._media.load_audio(
                audio.data, audio.format, param=f"{path}.input_audio.data", allowance=self._allowance
            )
            return TextPart(await write_down(sound.data))

        return _Reference(hear, is_audio=True)

    def _document(self, file: File, path: str) -> _Reference:
        if file.file_id is not None and file.file_data is None:
            raise UnsupportedOption(
                f"'{path}.file_id': files are not kept here; send the file in 'file_data'.", param=f"{path}.file_id"
            )
        data = _required(file.file_data, f"{path}.file_data")

        async def read() -> TextPart:
            text = await self._media.load_document(
                data, filename=file.filename, param=f"{path}.file_data", allowance=self._allowance
            )
            name = (file.filename or "document").replace('"', "'")[:256]
            return TextPart(f'<file name="{name}">\n{text}\n</file>')

        return _Reference(read)


def _function_calls(messages: Iterable[Message]) -> Iterator[FunctionCall]:
    """Yield the functions that earlier turns called."""
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


def _join_drafts(drafts: list[_Draft]) -> tuple[Turn, ...]:
    return tuple([replace(turn, content=_content(parts)) if parts else turn for turn, parts in drafts])


def _content(parts: list[TextPart | _Reference]) -> str | tuple[Part, ...]:
    found = [part.resolved if isinstance(part, _Reference) else part for part in parts]
    texts = [part.text for part in found if isinstance(part, TextPart)]
    # As vLLM does for templates that take strings.
    return "\n".join(texts) if len(texts) == len(found) else tuple(part for part in found if part is not None)


def _required(value: Any, path: str) -> Any:
    if value is None:
        raise InvalidRequest(f"The field '{path}' is required.", param=path)
    return value
