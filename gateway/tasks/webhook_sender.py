"""Sends webhooks of tasks: one attempt, and what follows from its outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from gateway.errors import InvalidRequest, Overloaded, StorageFull
from gateway.media.invalid_media import InvalidMedia
from gateway.media.url_fetcher import UrlFetcher
from gateway.observability.telemetry import Metrics
from gateway.settings import Settings
from gateway.tasks.webhooks import Delivery, encode, event_of, wait_seconds

if TYPE_CHECKING:
    from gateway.tasks.task_store import TaskStore

MAX_URL_CHARACTERS = 2048
_TIMEOUT_SECONDS = 15.0
"""Timeout of one attempt, from the lookup of the host to the headers of the response."""
_LOOKUPS = 4
_STATUS_GONE = 410
"""The receiver wants no more attempts (Standard Webhooks)."""
_STORE_WAIT_SECONDS = 2.0

T = TypeVar("T")


class WebhookSender:
    """Sends events to URLs of callers, which are not trusted (`gateway.media.ssrf`). Redirects are failures."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
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

    def check(self, url: str) -> None:
        """Raise `InvalidRequest` if no event can ever be sent to `url`."""
        try:
            if len(url) > MAX_URL_CHARACTERS:
                raise InvalidMedia(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
            self._fetcher.check(url)
        except InvalidMedia as error:
            raise InvalidRequest(f"Invalid value for 'webhook_url': {error}.", param="webhook_url") from None

    async def deliver(self, delivery: Delivery, store: "TaskStore") -> str:
        """Make one attempt, and store the next one if it fails. Return its outcome, as the metrics name it.

        Waits for the database while it does not answer. If the task has been deleted, the outcome is `deleted`, and
        nothing is sent.
        """
        task = await _persist(lambda: store.find(delivery.task, delivery.owner))
        if task is None:
            return "deleted"
        event, began_at = event_of(task), delivery.began or time.time()
        headers, body = encode(event, self._secrets, int(time.time()))
        began = time.monotonic()
        status, reason = None, None
        try:
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
