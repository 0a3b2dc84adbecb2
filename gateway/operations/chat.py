"""Answer a conversation."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from gateway.operations.operation import Operation
from gateway.operations.text import Delta, Finish, FinishReason, Sampling, TokenLogprob, Usage

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a message that is read."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A part of a message that is looked at: an encoded image (PNG, JPEG, WebP …)."""

    data: bytes


Part: TypeAlias = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made. `arguments` is a JSON object in text where they are `valid`, else any text."""

    id: str
    name: str
    arguments: str
    has_valid_arguments: bool = True


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
class RequiredTool:
    """The function that has to be called."""

    name: str


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | RequiredTool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat(Operation):
    """Answer `messages`.

    `template_arguments` go to the model's chat template. `continue_final` goes on with the last message instead of
    answering it. `parallel_tool_calls` False means at most one call. `whole` is that of `Complete`.
    """

    operation: ClassVar = "chat"
    phrase: ClassVar = "answer chats"
    route: ClassVar = "/v1/chat/completions"
    node_type: ClassVar = 0
    delta_events: ClassVar = (Delta,)
    usage_events: ClassVar = (Usage,)

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "none"
    parallel_tool_calls: bool = True
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    continue_final_message: bool = False
    non_streaming: bool = False

    @property
    def images(self) -> tuple[bytes, ...]:
        """The pictures of all messages, in their order."""
        parts = (part for message in self.messages if not isinstance(message.content, str) for part in message.content)
        return tuple(part.data for part in parts if isinstance(part, ImagePart))


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Text was added to what answer `index` thinks before it answers."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """Answer `index` begins its tool call number `call`."""

    index: int
    call: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """Text was added to the arguments of a tool call: all such texts together are a JSON object."""

    index: int
    call: int
    text: str


ChatEvent: TypeAlias = Delta | ReasoningDelta | ToolCallBegin | ToolCallArguments | Finish | Usage


@dataclass(frozen=True, slots=True)
class GeneratedToolCall:
    """A whole tool call."""

    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[GeneratedToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    logprobs: Sequence[TokenLogprob] = ()


async def gather(events: AsyncIterator[ChatEvent]) -> tuple[list[Answer], Usage | None]:
    """Fold a stream into its answers, by index, and what was counted."""
    gathered: dict[int, _AnswerBuilder] = {}
    usage = None
    async for event in events:
        if isinstance(event, Usage):
            usage = event
            continue
        parts = gathered.setdefault(event.index, _AnswerBuilder())
        match event:
            case Delta(_, text, _, logprobs):
                parts.text.append(text)
                parts.logprobs.extend(logprobs)
            case ReasoningDelta(_, text):
                parts.reasoning.append(text)
            case ToolCallBegin(_, _, name):
                parts.tool_calls.append((name, []))
            case ToolCallArguments(_, call, text):
                parts.tool_calls[call][1].append(text)
            case Finish(_, reason):
                parts.finish_reason = reason
    return [gathered[index].build() for index in sorted(gathered)], usage


@dataclass(slots=True)
class _AnswerBuilder:
    """What came of one answer: texts are joined once, at the end."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[tuple[str, list[str]]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def build(self) -> Answer:
        return Answer(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=tuple(GeneratedToolCall(name, "".join(arguments)) for name, arguments in self.tool_calls),
            finish_reason=self.finish_reason,
            logprobs=self.logprobs,
        )
