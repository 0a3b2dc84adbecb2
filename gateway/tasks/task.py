"""A task: a request that runs in the background and whose outputs are stored."""

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from gateway.operations.operation import TaskOperation
from gateway.operations.registry import OPERATIONS

TaskState: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled"]

_TASK_ID = re.compile(r"task_[0-9a-f]{32}")

FINAL_STATES: frozenset[TaskState] = frozenset({"completed", "failed", "cancelled"})
"""States of tasks that have ended."""


class QuotaExceeded(Exception):
    """An owner has its maximum of open tasks."""


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """Output number `index` of a task. The file store has its bytes under the id `file`, until a sweep removes them.

    `facts` are named JSON values that describe the output (`gateway.operations.operation`), as in `{"seed": 5}`.
    """

    index: int
    file: str
    content_type: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """The failure of a task: the fields of the `GatewayError` that ended it."""

    status: int
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it was when it was read. Times are in Unix seconds; `progress` is 0 to 100.

    `kind` is the name of the operation, and `request` holds its fields as JSON, with `{"file": id}` for bytes.
    `labels` are JSON values of the dialect that submitted it; `labels["dialect"]` is the name of one that has some.
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
    labels: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[TaskOutput, ...] = ()
    error: TaskFailure | None = None


def task_object(kind: str) -> str:
    """Return the `TaskOperation.task_object` of the operation that is named `kind`; "task" for an unknown one."""
    operation = OPERATIONS.get(kind)
    return operation.task_object if operation and issubclass(operation, TaskOperation) else TaskOperation.task_object


def new_task_id() -> str:
    """Return a new id. Ids sort by the time of their creation, as UUIDs of version 7 do (RFC 9562).

    The database orders tasks of one of its ticks by id, so the queue is first in, first out.
    """
    milliseconds, microseconds = divmod(time.time_ns() // 1000, 1000)
    return f"task_{milliseconds:012x}{microseconds:03x}{secrets.token_hex(16)[:17]}"


def id_of_key(owner: str, idempotency_key: str) -> str:
    """Return the id of the task that `owner` submits with this key."""
    return f"task_{hashlib.sha256(f'{owner} {idempotency_key}'.encode()).hexdigest()[:32]}"


def is_task_id(id: str) -> bool:
    """Return whether `id` has the form of a task id. Other ids are not looked up in the database."""
    return _TASK_ID.fullmatch(id) is not None


def owner_id(key: str | None) -> str:
    """Return the owner of the tasks of an API key: a digest of the key. Callers without keys are one owner."""
    return "anybody" if key is None else hashlib.sha256(b"task owner\n" + key.encode()).hexdigest()[:40]
