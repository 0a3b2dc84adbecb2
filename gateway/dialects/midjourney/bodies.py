"""The bodies of requests. Fields of the published API that have no meaning here are accepted and ignored."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from gateway.http.wire_model import WireModel

MAX_PROMPT_CHARACTERS = 16_000
MAX_PICTURES = 16
_MAX_STATE_CHARACTERS = 2000

TaskId = Annotated[str | int, Field(description="The id of a task."), AfterValidator(lambda id: str(id)[:200])]
Text = Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS)]
Picture = Annotated[str | None, Field(description="A data URL, base64, or an http(s) URL.")]
Pictures = Annotated[
    list[str] | None, Field(max_length=MAX_PICTURES, description="Data URLs, base64, or http(s) URLs.")
]


class Submission(WireModel):
    """Fields of every submission."""

    notifyHook: Annotated[  # noqa: N815
        str | None, Field(description="URL that is called with the task when its status or progress changes.")
    ] = None
    state: Annotated[str | None, Field(max_length=_MAX_STATE_CHARACTERS, description="Returned with the task.")] = None
    botType: Literal["MID_JOURNEY", "NIJI_JOURNEY", ""] | None = None  # noqa: N815
    accountFilter: dict[str, Any] | None = None  # noqa: N815


class ImagineRequest(Submission):
    """A prompt, and pictures to start from."""

    prompt: Text = None
    base64Array: Pictures = None  # noqa: N815
    base64: Picture = None


class BlendRequest(Submission):
    """Two to five pictures to blend."""

    base64Array: Pictures = None  # noqa: N815
    dimensions: Literal["PORTRAIT", "SQUARE", "LANDSCAPE", ""] | None = None


class DescribeRequest(Submission):
    """A picture to describe."""

    base64: Picture = None
    link: Picture = None
    language: Annotated[str | None, Field(max_length=100)] = None


class ShortenRequest(Submission):
    """A prompt to analyse."""

    prompt: Text = None


class ChangeRequest(Submission):
    """A change of a grid: the action, and the number of the picture."""

    taskId: TaskId  # noqa: N815
    action: Literal["UPSCALE", "VARIATION", "REROLL"]
    index: Annotated[int | None, Field(ge=0, le=4)] = None


class SimpleChangeRequest(Submission):
    """A change of a grid as a text: `ID U1`, `ID V2` or `ID R`."""

    content: Annotated[str, Field(max_length=500)]


class ActionRequest(Submission):
    """A button of a task."""

    taskId: TaskId  # noqa: N815
    customId: Annotated[str, Field(max_length=300)]  # noqa: N815


class ModalRequest(Submission):
    """The input that a task in the status MODAL waits for."""

    taskId: TaskId  # noqa: N815
    prompt: Text = None
    maskBase64: Picture = None  # noqa: N815


class EditsRequest(Submission):
    """A picture, a prompt, and optionally a mask of what may change."""

    prompt: Text = None
    image: Annotated[str | list[str] | None, Field(description="A URL, a data URL or base64.")] = None
    base64Array: Pictures = None  # noqa: N815
    maskBase64: Picture = None  # noqa: N815


class MotionRequest(Submission):
    """A first picture, or a prompt, or both."""

    prompt: Text = None
    motion: Annotated[str | None, Field(max_length=20)] = None
    image: Picture = None
    endImage: Picture = None  # noqa: N815
    loop: bool | None = None
    action: Annotated[str | None, Field(max_length=50)] = None
    index: Annotated[int | None, Field(ge=0, le=3)] = None
    taskId: TaskId | None = None  # noqa: N815


class UploadRequest(WireModel):
    """Pictures to store."""

    base64Array: Pictures = None  # noqa: N815


class SwapRequest(Submission):
    """The picture with the face, and the picture that gets it."""

    sourceBase64: Picture = None  # noqa: N815
    targetBase64: Picture = None  # noqa: N815
    sourceUrl: Picture = None  # noqa: N815
    targetUrl: Picture = None  # noqa: N815


class ListRequest(WireModel):
    """The tasks to return."""

    ids: Annotated[list[TaskId], Field(max_length=500)]
