"""Submission of tasks: their labels, the banned words, and the result codes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import Response

from gateway.dialects.midjourney import access, view
from gateway.dialects.midjourney.bodies import Submission
from gateway.dialects.midjourney.buttons import View
from gateway.dialects.midjourney.errors import Code, Refusal, answer
from gateway.errors import RateLimited
from gateway.operations.operation import TaskOperation
from gateway.settings import Settings
from gateway.tasks.task import Task
from gateway.tasks.task_queue import TaskQueue

DIALECT_NAME = "midjourney"
_MAX_SHOWN = 16_000
"""Characters of a text that a task keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A task to submit: its operation, and what the client sees of it.

    `prompt` is the client's prompt, `final` the one with parameters in one form, `text` what the pictures show.
    `notes` tell which parameters have no effect. `more` are further labels.
    """

    operation: TaskOperation
    action: str
    view: View
    prompt: str = ""
    final: str = ""
    text: str = ""
    notes: tuple[str, ...] = ()
    custom_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def prompts_of(parent: Task) -> dict[str, Any]:
    """Return the fields `prompt`, `final` and `text` of a draft that takes them from another task."""
    return {name: parent.labels.get(name, "") for name in ("prompt", "final", "text")}


async def submit(request: Request, draft: Draft, body: Submission, key: str | None = None) -> Response:
    """Queue the task of a draft, and return the response with its id. `key` is an idempotency key of this dialect.

    Raises `Refusal`, and the errors of `TaskQueue.submit`.
    """
    task = await create(request, draft, body, key)
    id = view.shown_id(task)
    settings: Settings = request.app.state.settings
    if settings.midjourney_queue_code and task.state == "queued":
        queue: TaskQueue = request.app.state.tasks
        if waiting := await queue.count_waiting(task):
            properties = {"numberOfQueues": waiting, "discordInstanceId": task.model}
            return answer(Code.IN_QUEUE, f"In queue, {waiting} tasks are ahead", id, properties)
    return answer(Code.SUCCESS, "Submit success", id)


def check(request: Request, body: Submission, prompt: str | None = None) -> None:
    """Check the words of a prompt and `notifyHook`: before pictures are loaded or a model is asked.

    Raises `Refusal` and `InvalidRequest`.
    """
    _check_words(prompt or "", request.app.state.settings)
    queue: TaskQueue = request.app.state.tasks
    if body.notifyHook:
        queue.webhooks.check(body.notifyHook, "notifyHook")


async def create(
    request: Request, draft: Draft, body: Submission, key: str | None = None, *, reports_end: bool = True
) -> Task:
    """Queue the task of a draft, and return it. With `reports_end`, its end is sent to `notifyHook`.

    Raises as `submit` does.
    """
    _check_words(draft.prompt, request.app.state.settings)
    queue: TaskQueue = request.app.state.tasks
    try:
        return await queue.submit(
            draft.operation,
            access.task_owner(request),
            key,
            (body.notifyHook or None) if reports_end else None,
            webhook_param="notifyHook",
            labels=_labels(request, draft, body),
        )
    except RateLimited as error:
        raise Refusal(Code.QUEUE_REJECTED, error.message) from None


def _labels(request: Request, draft: Draft, body: Submission) -> dict[str, Any]:
    labels: dict[str, Any] = {
        "dialect": DIALECT_NAME,
        "action": draft.action,
        "view": draft.view,
        "prompt": draft.prompt[:_MAX_SHOWN],
        "final": (draft.final or draft.prompt)[:_MAX_SHOWN],
        "text": draft.text[:_MAX_SHOWN],
        "description": " ".join(draft.notes) or None,
        "state": body.state,
        "botType": body.botType,
        "customId": draft.custom_id,
        "webhook_url": body.notifyHook or None,
        "base": str(request.base_url).rstrip("/"),
        **draft.more,
    }
    return {name: value for name, value in labels.items() if value not in (None, "")}


def _check_words(prompt: str, settings: Settings) -> None:
    """Raise `Refusal` if a prompt has a word of the setting `midjourney_banned_words`."""
    for word in settings.midjourney_banned_words:
        if found := re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE):
            raise Refusal(
                Code.BANNED_PROMPT,
                "The prompt contains a banned word.",
                {"promptEn": prompt[:_MAX_SHOWN], "bannedWord": found[0]},
            )
