"""What this dialect answers, as models: the OpenAPI document shows them, and the tests hold every answer against them.

Answers are not made from these: they are written by `render`, straight to bytes. What OpenAI's reference does not know
is what the standard document adds (`code`, `message`, `project`, a model's `model` and `url`) and `reasoning_content`.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from gateway.http.openapi_responses import omitted

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "function_call"]


class SuccessFields(BaseModel):
    """What every success bears beside its own fields."""

    code: Literal[0]
    message: Literal["success"]


class CompletionUsage(BaseModel):
    """Tokens, as the engine counted them."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class TopLogprob(BaseModel):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[Annotated[int, Field(ge=0, le=255)]]


class ChatCompletionTokenLogprob(TopLogprob):
    """A token of the answer, and the likeliest ones at its place."""

    top_logprobs: Annotated[list[TopLogprob], Field(max_length=20)]


class ChatLogprobs(BaseModel):
    """The log probabilities of an answer, or of what a chunk adds to it."""

    content: list[ChatCompletionTokenLogprob]
    refusal: None


class CalledFunction(BaseModel):
    """A function, and its arguments as JSON in text."""

    name: str
    arguments: str


class ChatCompletionMessageToolCall(BaseModel):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatCompletionResponseMessage(BaseModel):
    """What the model says, calls and thinks."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[ChatCompletionMessageToolCall], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[CalledFunction, Field(default_factory=omitted)]


class ChatCompletionChoice(BaseModel):
    """One answer."""

    index: Annotated[int, Field(ge=0)]
    message: ChatCompletionResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class CreateChatCompletionResponse(SuccessFields):
    """An answered conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: Annotated[list[ChatCompletionChoice], Field(min_length=1)]
    usage: Annotated[CompletionUsage, Field(default_factory=omitted)]


class CalledFunctionChunk(BaseModel):
    """What is added to a call: its name comes first, and once."""

    name: Annotated[str, Field(default_factory=omitted)]
    arguments: str


class ChatCompletionMessageToolCallChunk(BaseModel):
    """What is added to a call of the model; the id and the type come first, and once."""

    index: Annotated[int, Field(ge=0)]
    id: Annotated[str, Field(default_factory=omitted)]
    type: Annotated[Literal["function"], Field(default_factory=omitted)]
    function: CalledFunctionChunk


class ChatCompletionStreamResponseDelta(BaseModel):
    """What is added to an answer."""

    role: Annotated[Literal["assistant"], Field(default_factory=omitted)]
    content: Annotated[
        str | None, Field(default_factory=omitted, description="Null where a call or a thought is first.")
    ]
    refusal: None = None
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[ChatCompletionMessageToolCallChunk], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[CalledFunctionChunk, Field(default_factory=omitted)]


class ChatCompletionChunkChoice(BaseModel):
    """One answer grows."""

    index: Annotated[int, Field(ge=0)]
    delta: ChatCompletionStreamResponseDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class CreateChatCompletionStreamResponse(BaseModel):
    """One event of a streamed answer. With `stream_options.include_usage`, the last has the usage and no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: Annotated[list[ChatCompletionChunkChoice], Field(max_length=1)]
    usage: CompletionUsage | None = None


class CompletionLogprobs(BaseModel):
    """Log probabilities in the older shape: four lists, with an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Annotated[int, Field(ge=0)]]


class CompletionChoice(BaseModel):
    """One continuation, or what a chunk adds to it."""

    index: Annotated[int, Field(ge=0)]
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CreateCompletionStreamResponse(BaseModel):
    """One event of a streamed continuation."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: Annotated[list[CompletionChoice], Field(max_length=1)]
    usage: CompletionUsage | None = None


class CreateCompletionResponse(SuccessFields):
    """A continued text: choice j of prompt i is at i × n + j."""  # noqa: RUF002

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: Annotated[list[CompletionChoice], Field(min_length=1)]
    usage: Annotated[CompletionUsage, Field(default_factory=omitted)]


STREAM_EVENTS: tuple[type[BaseModel], ...] = (CreateChatCompletionStreamResponse, CreateCompletionStreamResponse)


class Embedding(BaseModel):
    """The vector of one input: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: Annotated[int, Field(ge=0)]
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of all inputs, as the engine counted them."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class CreateEmbeddingResponse(SuccessFields):
    """The vectors, in the order of the inputs."""

    object: Literal["list"]
    data: Annotated[list[Embedding], Field(min_length=1)]
    model: str
    usage: Annotated[EmbeddingUsage, Field(default_factory=omitted)]


class Model(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    permission: list[dict[str, Any]]
    root: str
    parent: None
    model: str
    url: Annotated[str, Field(description="Where the model is called.")]


class RetrieveModelResponse(Model, SuccessFields):
    """One model."""


class ListModelsResponse(SuccessFields):
    """Every model that can be asked now."""

    object: Literal["list"]
    project: str
    data: list[Model]
