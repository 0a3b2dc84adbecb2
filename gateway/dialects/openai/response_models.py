"""Models of the responses, for the OpenAPI document. The tests validate every response against them.

Responses are not built from these models: renderers write them as bytes. Fields that OpenAI's reference does not have
are those of the standard document (`code`, `message`, `project`, a model's `model` and `url`) and `reasoning_content`.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from gateway.http.openapi_responses import omitted

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "function_call"]


class SuccessFields(BaseModel):
    """Fields that every successful response has in addition to its own."""

    code: Literal[0]
    message: Literal["success"]


SUCCESS = {"code": 0, "message": "success"}
"""The values of `SuccessFields`."""


class CompletionUsage(BaseModel):
    """Tokens, as counted by the engine."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class TopLogprob(BaseModel):
    """A token, its UTF-8 bytes, and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[Annotated[int, Field(ge=0, le=255)]]


class ChatCompletionTokenLogprob(TopLogprob):
    """A token of the answer, and the most likely tokens at its position."""

    top_logprobs: Annotated[list[TopLogprob], Field(max_length=20)]


class ChatLogprobs(BaseModel):
    """The log probabilities of an answer or of a chunk."""

    content: list[ChatCompletionTokenLogprob]
    refusal: None


class CalledFunction(BaseModel):
    """A called function. `arguments` is JSON in a string."""

    name: str
    arguments: str


class ChatCompletionMessageToolCall(BaseModel):
    """A tool call of the model."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatCompletionAudio(BaseModel):
    """The spoken answer: the whole file in base64, and its text."""

    id: Annotated[str, Field(pattern="^audio_")]
    data: str
    expires_at: Annotated[int, Field(description="Unix time until which a later message may refer to it by `id`.")]
    transcript: str


class ChatCompletionAudioDelta(BaseModel):
    """A part of a spoken answer. The first has the id, the last `expires_at`. `data` is base64, and can be joined."""

    id: Annotated[str, Field(default_factory=omitted, pattern="^audio_")]
    data: Annotated[str, Field(default_factory=omitted)]
    expires_at: Annotated[int, Field(default_factory=omitted)]
    transcript: Annotated[str, Field(default_factory=omitted)]


class ChatCompletionResponseMessage(BaseModel):
    """The message of the model: text, tool calls, and its reasoning."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[ChatCompletionMessageToolCall], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[CalledFunction, Field(default_factory=omitted)]
    audio: Annotated[ChatCompletionAudio, Field(default_factory=omitted)]


class ChatCompletionChoice(BaseModel):
    """One of `n` answers."""

    index: Annotated[int, Field(ge=0)]
    message: ChatCompletionResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class CreateChatCompletionResponse(SuccessFields):
    """The response to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: Annotated[list[ChatCompletionChoice], Field(min_length=1)]
    usage: Annotated[CompletionUsage, Field(default_factory=omitted)]


class CalledFunctionChunk(BaseModel):
    """A part of a called function. Only the first part has the name."""

    name: Annotated[str, Field(default_factory=omitted)]
    arguments: str


class ChatCompletionMessageToolCallChunk(BaseModel):
    """A part of a tool call. Only the first part has the id and the type."""

    index: Annotated[int, Field(ge=0)]
    id: Annotated[str, Field(default_factory=omitted)]
    type: Annotated[Literal["function"], Field(default_factory=omitted)]
    function: CalledFunctionChunk


class ChatCompletionStreamResponseDelta(BaseModel):
    """A part of an answer."""

    role: Annotated[Literal["assistant"], Field(default_factory=omitted)]
    content: Annotated[
        str | None, Field(default_factory=omitted, description="Null where a tool call or reasoning comes first.")
    ]
    refusal: None = None
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[ChatCompletionMessageToolCallChunk], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[CalledFunctionChunk, Field(default_factory=omitted)]
    audio: Annotated[ChatCompletionAudioDelta, Field(default_factory=omitted)]


class ChatCompletionChunkChoice(BaseModel):
    """A part of one of `n` answers."""

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
    """Log probabilities in the older format: four lists with one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Annotated[int, Field(ge=0)]]


class CompletionChoice(BaseModel):
    """One continuation, or a part of it."""

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
    """The response to a completion: choice j of prompt i is at i × n + j."""  # noqa: RUF002

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
    """Tokens of all inputs, as counted by the engine."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class CreateEmbeddingResponse(SuccessFields):
    """The vectors of all inputs, in their order."""

    object: Literal["list"]
    data: Annotated[list[Embedding], Field(min_length=1)]
    model: str
    usage: Annotated[EmbeddingUsage, Field(default_factory=omitted)]


class Model(BaseModel):
    """A model that can serve requests."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    permission: list[dict[str, Any]]
    root: str
    parent: Annotated[str | None, Field(description="The model that a LoRA adapter belongs to.")]
    model: str
    url: Annotated[str, Field(description="The URL of the model's first operation.")]


class RetrieveModelResponse(Model, SuccessFields):
    """One model."""


class ListModelsResponse(SuccessFields):
    """All models that can serve requests now."""

    object: Literal["list"]
    project: str
    data: list[Model]
