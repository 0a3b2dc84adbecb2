"""Video responses: https://platform.openai.com/docs/api-reference/videos/object

`code`, `message`, `fps`, `seed` and an error's `param` are not OpenAI's.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from gateway.dialects.openai.response_models import SUCCESS, SuccessFields
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.video_docs import content_responses, with_poll_header
from gateway.dialects.openai.wire.video_tasks import Status
from gateway.http.openapi_responses import LOOKUP_FAILURES, STORED_OUTPUT_FAILURES, Responses


class VideoError(BaseModel):
    """The failure of a video."""

    code: str
    message: str
    param: str | None


class Video(BaseModel):
    """A video that is generated in the background."""

    id: str
    object: Literal["video"]
    model: str
    status: Status
    progress: Annotated[int, Field(ge=0, le=100)]
    created_at: int
    completed_at: int | None
    expires_at: Annotated[int | None, Field(description="The Unix time at which the file is removed.")]
    prompt: str | None
    seconds: Annotated[str, Field(description="The length that was asked for, in seconds.")]
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    fps: Annotated[int | None, Field(ge=1, description="Frames a second.")]
    seed: Annotated[int | None, Field(ge=0, description="The seed that generates it again; null until it is known.")]
    remixed_from_video_id: str | None
    error: VideoError | None


class CreateVideoResponse(Video, SuccessFields):
    """A video, as an answer."""


class ListVideosResponse(SuccessFields):
    """A page of videos."""

    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeleteVideoResponse(SuccessFields):
    """The answer to a deletion."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


_ID = "task_4f1c2a7d9e8b4c6fa0d3e5b7c9a1f2e4"
_EXAMPLE = {
    "id": _ID,
    "object": "video",
    "model": "moving-shapes",
    "status": "completed",
    "progress": 100,
    "created_at": 1763683200,
    "completed_at": 1763683221,
    "expires_at": 1764288021,
    "prompt": "a red circle moves to the left",
    "seconds": "2",
    "size": "128x128",
    "fps": 8,
    "seed": 7,
    "remixed_from_video_id": None,
    "error": None,
}
_QUEUED = {
    **_EXAMPLE,
    **{"status": "queued", "progress": 0, "completed_at": None, "expires_at": None, "seed": None},
}
_NOT_FOUND = "The video does not exist, was deleted, or belongs to another API key."


def _lookup(model: type[BaseModel], description: str, example: dict[str, Any]) -> Responses:
    documented = OPENAI_DOCS.responses(model, LOOKUP_FAILURES, description=description, example=example)
    documented[404]["description"] = _NOT_FOUND
    return documented


CREATE = with_poll_header(
    OPENAI_DOCS.responses(
        CreateVideoResponse, STORED_OUTPUT_FAILURES, description="The queued video.", example={**_QUEUED, **SUCCESS}
    )
)
RETRIEVE = with_poll_header(_lookup(CreateVideoResponse, "The video.", {**_EXAMPLE, **SUCCESS}))
LIST = _lookup(
    ListVideosResponse,
    "The videos.",
    {"object": "list", "data": [_EXAMPLE], "first_id": _ID, "last_id": _ID, "has_more": False, **SUCCESS},
)
DELETE = _lookup(
    DeleteVideoResponse, "The video is deleted.", {"id": _ID, "object": "video.deleted", "deleted": True, **SUCCESS}
)
CONTENT = content_responses("The video does not exist or belongs to another API key, or its file has expired.")
