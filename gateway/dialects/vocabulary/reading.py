"""How a conversation is read: what its messages refer to is fetched, and it becomes turns."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from gateway.dialects.vocabulary import tools
from gateway.dialects.vocabulary.keeping import Keeping
from gateway.dialects.vocabulary.messages import ContentPart, File, InputAudio, Message
from gateway.dialects.vocabulary.tools import Custom, FunctionCall
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.apart import LARGE, Asked, beside
from gateway.http.counting import check_length
from gateway.media.media import Media
from gateway.operations.chat import Message as Turn
from gateway.operations.chat import Part, Picture, Role, Text

# Templates written before OpenAI renamed the roles know only the old names.
ROLES: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


WriteDown: TypeAlias = Callable[[bytes], Awaitable[str]]

MOST_REFERENCES = 64
"""Pictures and files of one conversation: each may have to be fetched and decoded."""


@dataclass(slots=True, eq=False)
class _Reference:
    """A part that has to be fetched and read first.

    Of what is `heard` one after the other is: a sound may be large when it is decoded, and a model that writes it down
    takes its time.
    """

    fetch: Callable[[], Awaitable[Part]]
    heard: bool = False
    found: Part | None = None

    async def resolve(self) -> None:
        self.found = await self.fetch()


_Draft: TypeAlias = tuple[Turn, list[Text | _Reference]]


class Reading:
    """Turns messages of the wire into turns of a conversation; what they refer to is fetched."""

    def __init__(
        self,
        media: Media,
        *,
        sees: bool,
        write_down: WriteDown | None,
        bare: bool = False,
        keeping: Keeping | None = None,
        longest: int,
        asked: Asked,
    ) -> None:
        """`sees`: the model looks at pictures; those of one that does not are not even fetched.

        `write_down` gives the words of a sound (mono float32 samples, 16,000 a second), where a model does that. With
        `bare`, pictures may be bare base64, as files may; with `keeping`, those that were drawn here. `longest` is how
        many characters all texts may have. A conversation that `asked` calls large is read beside the loop.
        """
        self._longest = longest
        self._asked = asked
        self._media = media
        self._allowance = media.allowance(asked.caller)
        self._sees = sees
        self._write_down = write_down
        self._bare = bare
        self._look = keeping.picture if keeping else media.picture

    async def turns(
        self,
        messages: list[Message],
        watched: Callable[[Coroutine[Any, Any, None]], Awaitable[None]] = lambda work: work,
    ) -> tuple[Turn, ...]:
        """Return the turns. Raises `InvalidRequest` and `UnsupportedOption` with the path of what is wrong.

        What has to be waited for is, through `watched`; most conversations are only text.
        """
        drafts = await beside(self._asked, lambda: self._drafts(messages))
        if found := [part for _, parts in drafts for part in parts if isinstance(part, _Reference)]:
            await watched(self._resolve(found))
            # Documents may have far more text than the messages themselves.
            characters = sum(len(part.found.text) for part in found if isinstance(part.found, Text))
            check_length(characters, self._longest, param="messages")
            # What was fetched makes a small body a large request: it is rendered, and packed into tensors.
            pictures = sum(len(part.found.data) for part in found if isinstance(part.found, Picture))
            self._asked.large |= characters + pictures > LARGE
            if self._asked.holding:
                self._asked.holding.take(characters + pictures)
        return await beside(self._asked, lambda: _finished(drafts))

    async def _resolve(self, references: list[_Reference]) -> None:
        """Fetch and read what the messages refer to side by side; the first failure ends all. Then hear the sounds."""
        with self._allowance as allowance:
            tasks = [asyncio.create_task(reference.resolve()) for reference in references if not reference.heard]
            try:
                await allowance.within(self._media.request_timeout, asyncio.gather(*tasks), param="messages")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for reference in references:
                if reference.heard:
                    await reference.resolve()

    def _drafts(self, messages: list[Message]) -> list[_Draft]:
        contents = (message.content for message in messages if isinstance(message.content, list))
        references = sum(part.type != "text" for content in contents for part in content)
        if references > MOST_REFERENCES:
            raise InvalidRequest(
                f"A conversation may hold {MOST_REFERENCES} pictures and files, not {references}.", param="messages"
            )
        # No body holds more characters than bytes, nor more values than half as many.
        if self._asked.body_bytes > 2 * tools.ARGUMENTS.values:
            tools.check_arguments(_called(messages))
        if self._asked.body_bytes > self._longest:
            check_length(sum(map(_characters, messages)), self._longest, param="messages")
        return [self._turn(message, f"messages[{i}]") for i, message in enumerate(messages)]

    def _turn(self, message: Message, path: str) -> _Draft:
        """A turn, and its parts where it has any: they are put into it when its references are resolved."""
        calls = []
        for i, call in enumerate(message.tool_calls or ()):
            if isinstance(call, Custom):
                raise call.refused(f"{path}.tool_calls[{i}]")
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

    def _part(self, part: ContentPart, path: str) -> Text | _Reference:
        match part.type:
            case "text" | "refusal":
                return Text(_required(getattr(part, part.type), f"{path}.{part.type}"))
            case "image_url":
                image = _required(part.image_url, f"{path}.image_url")
                if not self._sees:
                    raise UnsupportedOption(f"'{path}': this model does not look at pictures.", param=path)
                url = image if isinstance(image, str) else image.url
                return _Reference(lambda: self._picture(url, f"{path}.image_url"))
            case "file":
                return self._document(_required(part.file, f"{path}.file"), f"{path}.file")
            case "input_audio":
                return self._sound(_required(part.input_audio, f"{path}.input_audio"), path)
            case _:
                raise UnsupportedOption(f"'{path}': parts of type '{part.type}' are not supported yet.", param=path)

    async def _picture(self, url: str, path: str) -> Picture:
        found = await self._look(url, bare=self._bare, param=path, allowance=self._allowance)
        return Picture(found.data)

    def _sound(self, audio: InputAudio, path: str) -> _Reference:
        write_down = self._write_down
        if write_down is None:
            raise UnsupportedOption(f"'{path}': no model is served that writes down what is said.", param=path)

        async def hear() -> Text:
            sound = await self._media.sound(
                audio.data, audio.format, param=f"{path}.input_audio.data", allowance=self._allowance
            )
            return Text(await write_down(sound.data))

        return _Reference(hear, heard=True)

    def _document(self, file: File, path: str) -> _Reference:
        if file.file_id is not None and file.file_data is None:
            raise UnsupportedOption(
                f"'{path}.file_id': files are not kept here; send the file in 'file_data'.", param=f"{path}.file_id"
            )
        data = _required(file.file_data, f"{path}.file_data")

        async def read() -> Text:
            text = await self._media.document(
                data, filename=file.filename, param=f"{path}.file_data", allowance=self._allowance
            )
            name = (file.filename or "document").replace('"', "'")[:256]
            return Text(f'<file name="{name}">\n{text}\n</file>')

        return _Reference(read)


def _called(messages: Iterable[Message]) -> Iterator[FunctionCall]:
    """Yield the functions that earlier turns called."""
    for message in messages:
        yield from (call.function for call in message.tool_calls or () if not isinstance(call, Custom))
        if message.function_call:
            yield message.function_call


def _characters(message: Message) -> int:
    content = message.content or ""
    written = content if isinstance(content, str) else "".join(part.text or part.refusal or "" for part in content)
    texts = (written, message.reasoning_content, message.name, message.tool_call_id)
    called = sum(len(call.arguments) + len(call.name) for call in _called((message,)))
    return called + sum(len(text) for text in texts if text)


def _finished(drafts: list[_Draft]) -> tuple[Turn, ...]:
    return tuple([replace(turn, content=_content(parts)) if parts else turn for turn, parts in drafts])


def _content(parts: list[Text | _Reference]) -> str | tuple[Part, ...]:
    found = [part.found if isinstance(part, _Reference) else part for part in parts]
    texts = [part.text for part in found if isinstance(part, Text)]
    # As vLLM does for templates that take strings.
    return "\n".join(texts) if len(texts) == len(found) else tuple(part for part in found if part is not None)


def _required(value: Any, path: str) -> Any:
    if value is None:
        raise InvalidRequest(f"The field '{path}' is required.", param=path)
    return value
