"""Tasks as the published API shows them, for answers and for webhooks."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel
from starlette.datastructures import State

from gateway.dialects.midjourney import access, buttons
from gateway.files.file_store import FileStore
from gateway.models.catalog import Catalog
from gateway.operations.keep_image import KeepImage
from gateway.settings import Settings
from gateway.tasks.task import Task, TaskState

Status: TypeAlias = Literal["SUBMITTED", "IN_PROGRESS", "SUCCESS", "FAILURE", "CANCEL", "MODAL"]

_STATUSES: Mapping[TaskState, Status] = {
    "queued": "SUBMITTED",
    "running": "IN_PROGRESS",
    "completed": "SUCCESS",
    "failed": "FAILURE",
    "cancelled": "CANCEL",
}
_DIGITS = ("1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣")


class Button(BaseModel):
    """A button of a task. `customId` is sent back to `submit/action`."""

    customId: str  # noqa: N815
    emoji: str
    label: str
    style: int
    type: int


class VideoUrl(BaseModel):
    """The URL of a video."""

    url: str


class MidjourneyTask(BaseModel):
    """A task. Times are in milliseconds since 1970; `progress` is a text such as "63%"."""

    id: str
    action: str
    status: Status
    prompt: str | None
    promptEn: str | None  # noqa: N815
    description: str | None
    state: str | None
    submitTime: int  # noqa: N815
    startTime: int | None  # noqa: N815
    finishTime: int | None  # noqa: N815
    progress: str
    imageUrl: str | None  # noqa: N815
    videoUrl: str | None  # noqa: N815
    videoUrls: list[VideoUrl] | None  # noqa: N815
    failReason: str | None  # noqa: N815
    customId: str | None  # noqa: N815
    botType: str  # noqa: N815
    maskBase64: str | None  # noqa: N815
    buttons: list[Button]
    properties: dict[str, Any]


def status(task: Task) -> Status:
    """Return the status of a task."""
    if task.labels.get("modal"):
        return "MODAL"
    if task.labels.get("cancelled"):
        return "CANCEL"
    if task.kind == KeepImage.operation and task.state in ("queued", "running"):
        return "SUCCESS"  # its picture exists already
    return _STATUSES[task.state]


def shown_id(task: Task) -> str:
    """Return the id by which the client knows a task: one that continues a modal has the id of the modal."""
    id: str = task.labels.get("id") or task.id
    return id


def texts_of(task: Task) -> list[str]:
    """Return the texts of a task: descriptions of its picture, or shorter prompts."""
    facts = task.outputs[0].facts if task.outputs else {}
    found: list[str] = facts.get("texts") or task.labels.get("texts") or []
    return found


def image_url(task: Task, state: State) -> str | None:
    """Return the signed URL of the picture or grid of a task; None if it has none."""
    if status(task) != "SUCCESS" or task.labels.get("view") not in ("grid", "single"):
        return None
    files: FileStore = state.files
    return f"{_base(task, state)}/mj/image/{task.id}?{files.sign(access.picture_name(task.id))}"


def render(task: Task, state: State) -> dict[str, Any]:
    """Return a task as `MidjourneyTask`. `state` is that of the application."""
    labels = task.labels
    shown = status(task)
    view = labels.get("view", "none")
    done, waits = shown == "SUCCESS", shown == "MODAL"
    texts = texts_of(task)
    count = len(texts) or len(task.outputs)
    videos = [_video_url(task, state)] if done and view == "video" and task.outputs else []
    reason = task.error.message if task.error else "The task was cancelled." if shown == "CANCEL" else None
    numbered = [f"{digit} {text}" for digit, text in zip(_DIGITS, texts, strict=False)]
    final = "\n\n".join([*([labels["heading"]] if "heading" in labels else []), *numbered])
    prompt = labels.get("prompt")
    properties = {"finalPrompt": final or labels.get("final"), "finalZhPrompt": None}
    return {
        "id": shown_id(task),
        "action": labels.get("action", "ACTION"),
        "status": shown,
        "prompt": final or prompt,
        "promptEn": final or labels.get("final") or prompt,
        "description": labels.get("description"),
        "state": labels.get("state"),
        "submitTime": int(task.created * 1000),
        # Relays ask no more about a task that has 100 %. One in the status MODAL waits for its prompt.
        "startTime": None if waits else _milliseconds(task.started or (task.created if done else None)),
        "finishTime": None if waits else _milliseconds(task.finished or (task.created if done else None)),
        "progress": _progress(task, shown),
        "imageUrl": image_url(task, state),
        "videoUrl": videos[0] if videos else None,
        "videoUrls": [{"url": url} for url in videos] or None,
        "failReason": reason,
        "customId": labels.get("customId"),
        "botType": labels.get("botType") or "MID_JOURNEY",
        "maskBase64": None,
        "buttons": buttons.mint(shown_id(task), view, count, _operations(state)) if done else [],
        "properties": properties,
    }


def _progress(task: Task, shown: str) -> str:
    match shown:
        case "SUCCESS":
            return "100%"
        case "FAILURE" | "CANCEL":
            return ""
        case "MODAL":
            return "0%"
        case _:
            return f"{task.progress}%"


def _video_url(task: Task, state: State) -> str:
    files: FileStore = state.files
    return files.url(task.outputs[0].file, _base(task, state))


def _base(task: Task, state: State) -> str:
    settings: Settings = state.settings
    return str(settings.public_url or task.labels.get("base", "")).rstrip("/")


def _operations(state: State) -> set[str]:
    catalog: Catalog = state.catalog
    return {operation for model in catalog.models() for operation in model.operations}


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
