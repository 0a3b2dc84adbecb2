"""What this dialect answers, as models: the OpenAPI document shows them, and the tests hold every answer against them.

The fields are the document's own; `reasoning_content`, `tool_calls` and `logprobs` are OpenAI's, where there are any.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from gateway.http.openapi_responses import omitted

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "function_call"]
Status: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


class ChatAnswerMessage(BaseModel):
    """What the model says, calls and thinks."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[dict[str, Any]], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[dict[str, Any], Field(default_factory=omitted)]


class ChatAnswerChoice(BaseModel):
    """One answer."""

    index: Annotated[int, Field(ge=0)]
    message: ChatAnswerMessage
    logprobs: Annotated[dict[str, Any], Field(default_factory=omitted)]
    finish_reason: FinishReason | None


class ChatAnswerUsage(BaseModel):
    """Tokens, as the engine counted them."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class ChatAnswer(BaseModel):
    """An answered conversation."""

    id: Annotated[str, Field(pattern="^foaicmpl-")]
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: Annotated[list[ChatAnswerChoice], Field(min_length=1)]
    usage: Annotated[ChatAnswerUsage, Field(default_factory=omitted)]


class ChatChunkDelta(BaseModel):
    """What is added to an answer: the role first, nothing with the last chunk."""

    role: Annotated[Literal["assistant"], Field(default_factory=omitted)]
    content: Annotated[str, Field(default_factory=omitted)]
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[dict[str, Any]], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[dict[str, Any], Field(default_factory=omitted)]


class ChatChunkChoice(BaseModel):
    """One answer grows."""

    index: Annotated[int, Field(ge=0)]
    delta: ChatChunkDelta
    logprobs: Annotated[dict[str, Any], Field(default_factory=omitted)]
    finish_reason: FinishReason | None


class ChatChunk(BaseModel):
    """One event of a streamed answer. With `stream_options.include_usage`, the last has the usage and no choices."""

    id: Annotated[str, Field(pattern="^foaicmpl-")]
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: Annotated[list[ChatChunkChoice], Field(max_length=1)]
    usage: Annotated[ChatAnswerUsage, Field(default_factory=omitted)]


class PlatformImage(BaseModel):
    """One picture: at a URL that expires, or in a data URL."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted, pattern="^data:image/")]


class Images(BaseModel):
    """Pictures, in the order of their seeds."""

    created: int
    data: Annotated[list[PlatformImage], Field(min_length=1)]


class TaskImage(BaseModel):
    """A picture that a task made. The URL is new with every answer, and expires."""

    url: str
    seed: Annotated[int | None, Field(description="The seed that draws it again.")]


class TaskError(BaseModel):
    """Why a task failed."""

    code: str
    message: str
    param: str | None


class TaskDetail(BaseModel):
    """All that is known of a task."""

    operation: Literal["generate_image", "edit_image"]
    progress: Annotated[int, Field(ge=0, le=100)]
    started_at: int | None
    completed_at: int | None
    request: dict[str, Any]
    data: list[TaskImage]
    error: TaskError | None


class ImageTask(BaseModel):
    """Work that goes on when nobody waits for it."""

    id: str
    object: Literal["image"]
    model: str
    status: Status
    created_at: int
    detail: Annotated[TaskDetail, Field(default_factory=omitted)]


class ImageTaskList(BaseModel):
    """Tasks, the newest first, as OpenAI lists things."""

    object: Literal["list"]
    data: list[ImageTask]
    first_id: str | None
    last_id: str | None
    has_more: bool


STREAM_EVENTS: tuple[type[BaseModel], ...] = (ChatChunk,)
