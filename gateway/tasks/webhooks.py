"""Webhooks of tasks in the format of Standard Webhooks: the events, their signatures, and the times of the attempts.

Specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
The events are like OpenAI's: https://platform.openai.com/docs/api-reference/webhook-events.
"""

import base64
import hashlib
import hmac
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from gateway.tasks.task import Task, task_object

_SECRET_PREFIX = "whsec_"  # noqa: S105
_FIRST_WAIT_SECONDS = 5.0
_WAIT_FACTOR = 4.0
_MAX_WAIT_SECONDS = 4 * 3600.0
_JITTER = 0.2
"""Part of a wait by which it is longer or shorter at random, so that a receiver that is back gets no burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to send the event of a task. The database stores it as JSON.

    `attempt` counts from 1. `began` is the time of the first attempt in Unix seconds, None before it.
    """

    task: str
    owner: str
    url: str
    attempt: int = 1
    began: float | None = None

    @property
    def id(self) -> str:
        """The id of this attempt in the database. The first one is `first_delivery_id`."""
        first = first_delivery_id(self.task)
        return first if self.attempt == 1 else f"{first}_{self.attempt}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON, which the constructor takes."""
        return asdict(self)


def first_delivery_id(task_id: str) -> str:
    """Return the id that the first attempt to send the event of a task has in the database."""
    return task_id.replace("task_", "webhook_")


def event_of(task: Task) -> dict[str, Any]:
    """Return the event of a task that has ended. Its id follows from the task: all attempts have the same."""
    return {
        "id": task.id.replace("task_", "evt_"),
        "object": "event",
        "created_at": int(task.finished or task.created),
        "type": f"{task_object(task.kind)}.{task.state}",
        "data": {"id": task.id},
    }


def encode(event: Mapping[str, Any], secrets: Sequence[str], now: int) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of the request that sends an event at `now`, in Unix seconds.

    The event is signed with each of `secrets` (`whsec_…`); without any, it has no signature.
    """
    body = orjson.dumps(event)
    return headers_of(event["id"], body, secrets, now), body


def headers_of(id: str, body: bytes, secrets: Sequence[str], now: int) -> dict[str, str]:
    """Return the headers of the request that sends `body` as the event `id`, as `encode` does."""
    headers = {"Content-Type": "application/json", "webhook-id": id, "webhook-timestamp": str(now)}
    if secrets:
        signed = b".".join((id.encode(), str(now).encode(), body))
        headers["webhook-signature"] = " ".join(f"v1,{_signature(secret, signed)}" for secret in secrets)
    return headers


def wait_seconds(attempt: int) -> float:
    """Return the seconds from the failed `attempt` (from 1) to the next: 5 s, 20 s, 80 s … 4 h, plus or minus 20 %."""
    wait = min(_MAX_WAIT_SECONDS, _FIRST_WAIT_SECONDS * _WAIT_FACTOR ** min(attempt - 1, 30))
    return wait * random.uniform(1 - _JITTER, 1 + _JITTER)


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
