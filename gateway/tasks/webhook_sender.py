"""Sends webhooks of tasks: one attempt, and what follows from its outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import orjson
import structlog

from gateway.errors import InvalidRequest, Overloaded, StorageFull
from gateway.media.invalid_media import InvalidMedia
from gateway.media.url_fetcher import UrlFetcher
from gateway.observability.telemetry import Metrics
from gateway.settings import Settings
from gateway.tasks.task import Task
from gateway.tasks.webhooks import Delivery, encode, event_of, headers_of, wait_seconds

if TYPE_CHECKING:
    from gateway.tasks.task_store import TaskStore

MAX_URL_CHARACTERS = 2048
_TIMEOUT_SECONDS = 15.0
"""Timeout of one attempt, from the lookup of the host to the headers of the response."""
_LOOKUPS = 4
_STATUS_GONE = 410
"""The receiver wants no more attempts (Standard Webhooks)."""
_STORE_WAIT_SECONDS = 2.0
_REPORT_SECONDS = 1.0
"""Interval at which the progress of a task is compared with what its webhook knows, in seconds."""
_MAX_REPORT_SECONDS = 30.0

RenderTask: TypeAlias = Callable[[Task], Mapping[str, Any]]
"""Returns a task as its dialect shows it."""

T = TypeVar("T")


class WebhookSender:
    """Sends events to URLs of callers, which are not trusted (`gateway.media.ssrf`). Redirects are failures."""

    def __init__(self, settings: Settings, metrics: Metrics, renderers: Mapping[str, RenderTask] | None = None) -> None:
        """`renderers` return the bodies of webhooks, by the name of the dialect that submitted a task."""
        self._renderers = renderers or {}
        self._secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
        self._retry_seconds = settings.webhook_retry_seconds
        self._attempts = metrics.webhooks
        self._fetcher = UrlFetcher(
            timeout=_TIMEOUT_SECONDS,
            max_bytes=0,
            allow_private=False,
            allowed_hosts=settings.webhook_allowed_hosts,
            lookups=_LOOKUPS,
        )
        self._log = structlog.get_logger("gateway.webhooks")

    def check(self, url: str, param: str = "webhook_url") -> None:
        """Raise `InvalidRequest` with `param` if no event can ever be sent to `url`."""
        try:
            if len(url) > MAX_URL_CHARACTERS:
                raise InvalidMedia(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
            self._fetcher.check(url)
        except InvalidMedia as error:
            raise InvalidRequest(f"Invalid value for '{param}': {error}.", param=param) from None

    def report_progress(
        self, id: str, labels: Mapping[str, Any], percent: Callable[[], int], store: "TaskStore"
    ) -> "asyncio.Task[None] | None":
        """Begin to send each change of a running task's progress to its webhook, until the result is cancelled.

        None: the dialect of the task reports the end alone. Reports follow one another, and one that fails is repeated
        with the newest progress. `percent` returns it.
        """
        url, render = labels.get("webhook_url"), self._renderers.get(labels.get("dialect", ""))
        if render is None or not isinstance(url, str):
            return None
        return asyncio.create_task(self._report_progress(id, url, render, percent, store))

    async def _report_progress(
        self, id: str, url: str, render: RenderTask, percent: Callable[[], int], store: "TaskStore"
    ) -> None:
        task = await _persist(lambda: store.find(id, None))
        sent, wait = -1, _REPORT_SECONDS
        while task is not None:
            current = max(task.progress, percent())  # a task that goes on after a crash begins at 0 here
            if current != sent:
                body = orjson.dumps(render(replace(task, state="running", progress=current)))
                event = f"{id.replace('task_', 'evt_')}_{current}"
                headers = headers_of(event, body, self._secrets, int(time.time()))
                try:
                    status = await self._fetcher.post(url, headers, body, caller=id)
                except InvalidMedia:
                    status = 0
                delivered = 200 <= status < 300
                sent, wait = (current, _REPORT_SECONDS) if delivered else (sent, min(2 * wait, _MAX_REPORT_SECONDS))
                self._attempts.labels("delivered" if delivered else "failed").inc()
            await asyncio.sleep(wait)

    async def deliver(self, delivery: Delivery, store: "TaskStore") -> str:
        """Make one attempt, and store the next one if it fails. Return its outcome, as the metrics name it.

        Waits for the database while it does not answer. If the task has been deleted, the outcome is `deleted`, and
        nothing is sent.
        """
        task = await _persist(lambda: store.find(delivery.task, delivery.owner))
        if task is None:
            return "deleted"
        event, began_at = event_of(task), delivery.began or time.time()
        began = time.monotonic()
        status, reason = None, None
        try:
            if render := self._renderers.get(task.labels.get("dialect", "")):
                body = orjson.dumps(render(task))
                headers = headers_of(event["id"], body, self._secrets, int(time.time()))
            else:
                headers, body = encode(event, self._secrets, int(time.time()))
            status = await self._fetcher.post(delivery.url, headers, body, caller=delivery.owner)
            if not 200 <= status < 300:
                reason = f"the receiver returned the HTTP status {status}"
        except InvalidMedia as error:
            reason = str(error)
        except Exception:  # the event must not be lost
            self._log.exception("sending a webhook failed", task=delivery.task)
            reason = "the gateway failed because of an internal error"
        wait = wait_seconds(delivery.attempt)
        ends = status == _STATUS_GONE or time.time() + wait > began_at + self._retry_seconds
        outcome = "delivered" if reason is None else "abandoned" if ends else "failed"
        if outcome == "failed":
            following = replace(delivery, attempt=delivery.attempt + 1, began=began_at)
            await _persist(lambda: store.webhooks.add(following, wait))
        self._attempts.labels(outcome).inc()
        write = self._log.info if reason is None else self._log.warning
        write(
            f"webhook {outcome}",
            task=delivery.task,
            type=event["type"],
            attempt=delivery.attempt,
            status=status,
            milliseconds=round((time.monotonic() - began) * 1000, 1),
            **({} if reason is None else {"reason": reason}),
            **({"retry_seconds": round(wait, 1)} if outcome == "failed" else {}),
        )
        return outcome


async def _persist(attempt: Callable[[], Awaitable[T]]) -> T:
    """Await `attempt()`, and repeat it while the database does not answer or is full: no event must be lost."""
    while True:
        try:
            return await attempt()
        except (Overloaded, StorageFull):
            await asyncio.sleep(_STORE_WAIT_SECONDS)
