"""Tasks as DBOS stores them in its rows, and their results as JSON."""

from collections.abc import Iterable
from typing import Any

from dbos import PortableWorkflowError
from dbos import WorkflowStatus as Row

from gateway.tasks.task import Task, TaskFailure, TaskOutput, TaskState

STATES: dict[str, TaskState] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "completed",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
"""The state of a task by DBOS's status of its row."""

_RECOVERY_EXHAUSTED = TaskFailure(
    500, "internal_error", "The service ended unexpectedly each time that it ran this task."
)


def task_from_row(row: Row) -> Task:
    """Return the task that a row of DBOS describes."""
    arguments: list[Any] = [*(row.input or {"args": ("", {})})["args"], {}]  # tasks without labels have two
    kind, request, labels = arguments[:3]
    state = STATES[row.status]
    outputs: tuple[TaskOutput, ...] = ()
    error = None
    if state == "completed" and row.output:
        outputs = _result_from_json(row.output)
    elif row.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        error = _RECOVERY_EXHAUSTED
    elif state == "failed":
        error = _failure(row.error)
    return Task(
        id=row.workflow_id,
        kind=kind,
        model=request.get("model", ""),
        state=state,
        progress=100 if state == "completed" else int((row.attributes or {}).get("progress", 0)),
        created=(row.created_at or 0) / 1000,
        started=row.dequeued_at / 1000 if row.dequeued_at else None,
        finished=row.completed_at / 1000 if row.completed_at else None,
        request=request,
        labels=labels,
        outputs=outputs,
        error=error,
    )


def result_to_json(outputs: Iterable[TaskOutput]) -> dict[str, Any]:
    """Return the result of a task as the database stores it: `{"outputs": [...]}`, the fields of `TaskOutput`."""
    return {
        "outputs": [
            {"index": o.index, "file": o.file, "content_type": o.content_type, "facts": dict(o.facts)} for o in outputs
        ]
    }


def _result_from_json(result: dict[str, Any]) -> tuple[TaskOutput, ...]:
    if "outputs" in result:
        return tuple(TaskOutput(**output) for output in result["outputs"])
    # Development versions before 0.1.0 stored images alone, as index, file, seed and content_type.
    return tuple(
        TaskOutput(image["index"], image["file"], image["content_type"], {"seed": image["seed"]})
        for image in result["images"]
    )


def _failure(error: Exception | None) -> TaskFailure:
    if isinstance(error, PortableWorkflowError) and isinstance(error.data, dict):
        data: dict[str, Any] = dict(error.data)
        return TaskFailure(data["status"], str(error.code), error.message, data["param"])
    return TaskFailure(500, "internal_error", "The gateway failed because of an internal error.")
