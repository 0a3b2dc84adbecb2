"""Models of the responses, for the OpenAPI document. The tests validate every response against them.

The fields are those of the platform document. `reasoning_content`, `tool_calls` and `logprobs` are OpenAI's.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from gateway.http.openapi_responses import omitted
from gateway.operations.operation import TaskOperation
from gateway.operations.registry import OPERATIONS

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "function_call"]
Status: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
if TYPE_CHECKING:
    ImageOperation: TypeAlias = str
else:  # the names of all operations whose outputs are images
    ImageOperation = Literal[
        tuple(
            name for name, kind in OPERATIONS.items() if issubclass(kind, TaskOperation) and kind.task_object == "image"
        )
    ]


class ChatAnswerMessage(BaseModel):
    """The message of the model: text, tool calls, and its reasoning."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[dict[str, Any]], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[dict[str, Any], Field(default_factory=omitted)]
    audio: Annotated[dict[str, Any], Field(default_factory=omitted)]


class ChatAnswerChoice(BaseModel):
    """One of `n` answers."""

    index: Annotated[int, Field(ge=0)]
    message: ChatAnswerMessage
    logprobs: Annotated[dict[str, Any], Field(default_factory=omitted)]
    finish_reason: FinishReason | None


class ChatAnswerUsage(BaseModel):
    """Tokens, as counted by the engine."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class ChatAnswer(BaseModel):
    """The response to a chat."""

    id: Annotated[str, Field(pattern="^foaicmpl-")]
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: Annotated[list[ChatAnswerChoice], Field(min_length=1)]
    usage: Annotated[ChatAnswerUsage, Field(default_factory=omitted)]


class ChatChunkDelta(BaseModel):
    """A part of an answer. The first has the role; the last is empty."""

    role: Annotated[Literal["assistant"], Field(default_factory=omitted)]
    content: Annotated[str, Field(default_factory=omitted)]
    reasoning_content: Annotated[str, Field(default_factory=omitted)]
    tool_calls: Annotated[list[dict[str, Any]], Field(default_factory=omitted, min_length=1)]
    function_call: Annotated[dict[str, Any], Field(default_factory=omitted)]
    audio: Annotated[dict[str, Any], Field(default_factory=omitted)]


class ChatChunkChoice(BaseModel):
    """A part of one of `n` answers."""

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
    """One image: at a URL that expires, or in a data URL."""

    url: Annotated[str, Field(default_factory=omitted)]
    b64_json: Annotated[str, Field(default_factory=omitted, pattern="^data:image/")]


class Images(BaseModel):
    """Images, in the order of their seeds."""

    created: int
    data: Annotated[list[PlatformImage], Field(min_length=1)]


class TaskImage(BaseModel):
    """An image that a task generated. Every response has a new URL, which expires."""

    url: str
    seed: Annotated[int | None, Field(description="The seed that generates it again.")]


class TaskError(BaseModel):
    """The failure of a task."""

    code: str
    message: str
    param: str | None


class TaskDetail(BaseModel):
    """The details of a task: its request, progress, times, images and failure."""

    operation: ImageOperation
    progress: Annotated[int, Field(ge=0, le=100)]
    started_at: int | None
    completed_at: int | None
    request: dict[str, Any]
    data: list[TaskImage]
    error: TaskError | None


class ImageTask(BaseModel):
    """Image generation that continues without a connection."""

    id: str
    object: Literal["image"]
    model: str
    status: Status
    created_at: int
    detail: Annotated[TaskDetail, Field(default_factory=omitted)]


class ImageTaskList(BaseModel):
    """A page of tasks, the newest first, in the format of OpenAI's lists."""

    object: Literal["list"]
    data: list[ImageTask]
    first_id: str | None
    last_id: str | None
    has_more: bool


class TranscriptionTaskFile(BaseModel):
    """The transcript of a task. Every response has a new URL, which expires."""

    url: str
    content_type: str


class TranscriptionTaskDetail(BaseModel):
    """The details of a task: its request, progress, times, transcript and failure."""

    operation: Literal["transcribe"]
    progress: Annotated[int, Field(ge=0, le=100)]
    started_at: int | None
    completed_at: int | None
    request: dict[str, Any]
    data: list[TranscriptionTaskFile]
    error: TaskError | None


class TranscriptionTask(BaseModel):
    """A transcription or translation that continues without a connection."""

    id: str
    object: Literal["transcription"]
    model: str
    status: Status
    created_at: int
    detail: Annotated[TranscriptionTaskDetail, Field(default_factory=omitted)]


class TranscriptionTaskList(BaseModel):
    """A page of tasks, the newest first, in the format of OpenAI's lists."""

    object: Literal["list"]
    data: list[TranscriptionTask]
    first_id: str | None
    last_id: str | None
    has_more: bool


class TaskVideo(BaseModel):
    """A video that a task generated. Every response has a new URL, which expires. `fps` is frames a second."""

    url: str
    seed: Annotated[int | None, Field(description="The seed that generates it again.")]
    width: int | None
    height: int | None
    num_frames: int | None
    fps: int | None


class VideoTaskDetail(BaseModel):
    """The details of a task: its request, progress, times, video and failure."""

    operation: Literal["generate_video"]
    progress: Annotated[int, Field(ge=0, le=100)]
    started_at: int | None
    completed_at: int | None
    request: dict[str, Any]
    data: list[TaskVideo]
    error: TaskError | None


class VideoTask(BaseModel):
    """Video generation that continues without a connection."""

    id: str
    object: Literal["video"]
    model: str
    status: Status
    created_at: int
    detail: Annotated[VideoTaskDetail, Field(default_factory=omitted)]


class VideoTaskList(BaseModel):
    """A page of tasks, the newest first, in the format of OpenAI's lists."""

    object: Literal["list"]
    data: list[VideoTask]
    first_id: str | None
    last_id: str | None
    has_more: bool


STREAM_EVENTS: tuple[type[BaseModel], ...] = (ChatChunk,)
