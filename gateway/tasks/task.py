"""What a caller can know of a task: work that goes on when nobody waits for it."""

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

TaskState: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled"]

FINAL_STATES: frozenset[TaskState] = frozenset({"completed", "failed", "cancelled"})
"""States that never change again."""


class QuotaExceeded(Exception):
    """An owner has as many open tasks as it may."""


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """Picture `index` of a task, which `Files` keeps under the id `file` for a while. None: its seed is not known."""

    index: int
    file: str
    seed: int | None
    content_type: str


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why a task failed, as the `GatewayError` would have told that a caller who waits had got."""

    status: int
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it was when it was looked at. Times are in Unix seconds; `progress` is 0 to 100.

    `request` holds the fields of the operation as JSON, with `{"file": id}` for each picture.
    """

    id: str
    kind: str
    model: str
    state: TaskState
    progress: int
    created: float
    started: float | None
    finished: float | None
    request: Mapping[str, Any]
    images: tuple[TaskOutput, ...] = ()
    error: TaskFailure | None = None


def new_task_id() -> str:
    """Return the id of a task. Those that are made later come later in order (as RFC 9562, version 7).

    The database orders by id what was made within one of its ticks: so the queue stays first in, first out.
    """
    milliseconds, microseconds = divmod(time.time_ns() // 1000, 1000)
    return f"task_{milliseconds:012x}{microseconds:03x}{secrets.token_hex(16)[:17]}"


def owner_id(key: str | None) -> str:
    """Return what stands for an API key where tasks are kept; callers without keys are one owner."""
    return "anybody" if key is None else hashlib.sha256(b"task owner\n" + key.encode()).hexdigest()[:40]
