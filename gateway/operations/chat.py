"""The operation `chat`: answers to a conversation."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from gateway.operations.operation import Operation
from gateway.operations.text import Delta, Finish, FinishReason, Sampling, TokenLogprob, Usage

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a message that is text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A part of a message that is an image: an encoded file (PNG, JPEG, WebP …)."""

    data: bytes


Part: TypeAlias = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made. `arguments` is a JSON object as text if `has_valid_arguments`, else any text."""

    id: str
    name: str
    arguments: str
    has_valid_arguments: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation. `content` is a text, or a tuple of parts where there are images."""

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
    """The tool as the caller wrote it, for chat templates."""


@dataclass(frozen=True, slots=True)
class RequiredTool:
    """A tool choice: the answer must call this function."""

    name: str


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | RequiredTool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat(Operation):
    """Answer `messages`.

    `template_arguments` are passed to the chat template of the model. With `continue_final_message` the model continues
    the last message instead of answering it. Without `parallel_tool_calls` an answer has at most one call.
    `non_streaming` has the meaning that it has in `Complete`.
    """

    operation: ClassVar = "chat"
    phrase: ClassVar = "answer chats"
    genai_operation: ClassVar = "chat"
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
        """The images of all messages, in their order."""
        parts = (part for message in self.messages if not isinstance(message.content, str) for part in message.content)
        return tuple(part.data for part in parts if isinstance(part, ImagePart))


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Text was added to the reasoning of answer `index`."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """Answer `index` begins a tool call. `call` counts the calls of one answer from 0."""

    index: int
    call: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """Text was added to the arguments of a tool call. All such texts of a call together are a JSON object."""

    index: int
    call: int
    text: str


ChatEvent: TypeAlias = Delta | ReasoningDelta | ToolCallBegin | ToolCallArguments | Finish | Usage


@dataclass(frozen=True, slots=True)
class GeneratedToolCall:
    """A complete tool call. `arguments` is the text of a JSON object."""

    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One complete answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[GeneratedToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    logprobs: Sequence[TokenLogprob] = ()


async def gather(events: AsyncIterator[ChatEvent]) -> tuple[list[Answer], Usage | None]:
    """Collect a stream. Return the answers ordered by index, and the token counts where the model reports them."""
    builders: dict[int, _AnswerBuilder] = {}
    usage = None
    async for event in events:
        if isinstance(event, Usage):
            usage = event
            continue
        builder = builders.setdefault(event.index, _AnswerBuilder())
        match event:
            case Delta(_, text, _, logprobs):
                builder.text.append(text)
                builder.logprobs.extend(logprobs)
            case ReasoningDelta(_, text):
                builder.reasoning.append(text)
            case ToolCallBegin(_, _, name):
                builder.tool_calls.append((name, []))
            case ToolCallArguments(_, call, text):
                builder.tool_calls[call][1].append(text)
            case Finish(_, reason):
                builder.finish_reason = reason
    return [builders[index].build() for index in sorted(builders)], usage


@dataclass(slots=True)
class _AnswerBuilder:
    """Collects one answer. The texts are joined once, at the end."""

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
