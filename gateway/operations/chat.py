"""Answer a conversation."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from gateway.operations.text import Delta, Finish, FinishReason, Sampling, TokenLogprob, Usage

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """A part of a message that is read."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of a message that is looked at: an encoded image (PNG, JPEG, WebP …)."""

    data: bytes


Part: TypeAlias = Text | Picture


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made. `arguments` is a JSON object in text where they are `valid`, else any text."""

    id: str
    name: str
    arguments: str
    valid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation. `content` is a text, or parts where there are pictures."""

    role: Role
    content: str | tuple[Part, ...]
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the assistant may call. `parameters` is the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    """The tool as the caller wrote it, for templates."""


@dataclass(frozen=True, slots=True)
class Named:
    """The function that has to be called."""

    name: str


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Answer `messages`.

    `template_arguments` go to the model's chat template. `continue_final` goes on with the last message instead of
    answering it. `parallel_tool_calls` False means at most one call. `whole` is that of `Complete`.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "none"
    parallel_tool_calls: bool = True
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    continue_final: bool = False
    whole: bool = False

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The pictures of all messages, in their order."""
        parts = (part for message in self.messages if not isinstance(message.content, str) for part in message.content)
        return tuple(part.data for part in parts if isinstance(part, Picture))


@dataclass(frozen=True, slots=True)
class Thought:
    """Text was added to what answer `index` thinks before it answers."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """Answer `index` begins its tool call number `call`."""

    index: int
    call: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """Text was added to the arguments of a tool call: all such texts together are a JSON object."""

    index: int
    call: int
    text: str


ChatEvent: TypeAlias = Delta | Thought | CallBegin | CallArguments | Finish | Usage


@dataclass(frozen=True, slots=True)
class Call:
    """A whole tool call."""

    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer."""

    text: str = ""
    thought: str = ""
    calls: tuple[Call, ...] = ()
    reason: FinishReason | None = None
    logprobs: Sequence[TokenLogprob] = ()


async def gather(events: AsyncIterator[ChatEvent]) -> tuple[list[Answer], Usage | None]:
    """Fold a stream into its answers, by index, and what was counted."""
    gathered: dict[int, _Parts] = {}
    usage = None
    async for event in events:
        if isinstance(event, Usage):
            usage = event
            continue
        parts = gathered.setdefault(event.index, _Parts())
        match event:
            case Delta(_, text, _, logprobs):
                parts.text.append(text)
                parts.logprobs.extend(logprobs)
            case Thought(_, text):
                parts.thought.append(text)
            case CallBegin(_, _, name):
                parts.calls.append((name, []))
            case CallArguments(_, call, text):
                parts.calls[call][1].append(text)
            case Finish(_, reason):
                parts.reason = reason
    return [gathered[index].joined() for index in sorted(gathered)], usage


@dataclass(slots=True)
class _Parts:
    """What came of one answer: texts are joined once, at the end."""

    text: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    calls: list[tuple[str, list[str]]] = field(default_factory=list)
    reason: FinishReason | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def joined(self) -> Answer:
        return Answer(
            text="".join(self.text),
            thought="".join(self.thought),
            calls=tuple(Call(name, "".join(arguments)) for name, arguments in self.calls),
            reason=self.reason,
            logprobs=self.logprobs,
        )
