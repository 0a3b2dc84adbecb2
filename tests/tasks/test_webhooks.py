"""Webhooks of tasks: what is sent when a task ends, how often, and to whom."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from openai import InvalidWebhookSignatureError, OpenAI

from gateway.errors import InvalidRequest
from gateway.tasks import webhook_sender, webhooks
from tests.fakes.triton import FakeTriton
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.tasks.gateway_processes import TaskGateway
from tests.tasks.harness import OTHER_OWNER, OWNER, image_request, task_harness

SECRET, OLD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "B" * 32
SIGNED: dict[str, Any] = {"webhook_secret": [SECRET], "webhook_allowed_hosts": ["127.0.0.1"]}
UNSIGNED: dict[str, Any] = {"webhook_allowed_hosts": ["127.0.0.1"]}
OPENAI = OpenAI(api_key="none")


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    running = await WebhookReceiver().start()
    yield running
    await running.stop()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(webhooks, "_WAIT_FACTOR", 1.0)


async def test_openai_client_verifies_the_event_of_a_completed_task(
    triton: FakeTriton, database: str, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with task_harness(
        triton.url, tmp_path, database, **{**SIGNED, "webhook_secret": [SECRET, OLD_SECRET]}
    ) as home:
        task = await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url("hook?of=me"))
        (call,) = await receiver.until(1)
        done = await home.tasks.get(task.id, OWNER)
        assert done.state == "completed", "the event came before the end of the task"
    assert call.path == "/hook?of=me" and call.headers["Content-Type"] == "application/json"
    assert call.headers["webhook-id"] == call.event["id"]
    assert abs(int(call.headers["webhook-timestamp"]) - call.time) < 5
    for secret in (SECRET, OLD_SECRET):
        event: Any = OPENAI.webhooks.unwrap(call.body, call.headers, secret=secret)
        assert (event.type, event.object, event.data.id) == ("image.completed", "event", task.id)
        assert event.created_at == int(done.finished or 0)
    with pytest.raises(InvalidWebhookSignatureError):
        OPENAI.webhooks.unwrap(call.body + b" ", call.headers, secret=SECRET)
    with pytest.raises(InvalidWebhookSignatureError):
        OPENAI.webhooks.unwrap(call.body, call.headers, secret="whsec_" + "C" * 32)


async def test_failed_and_cancelled_tasks_have_events(
    triton: FakeTriton, database: str, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with task_harness(triton.url, tmp_path, database, tasks_concurrency=1, **UNSIGNED) as home:
        running = await home.tasks.submit(image_request(model="slow"), OWNER, webhook_url=receiver.url())
        queued = await home.tasks.submit(image_request(model="slow"), OWNER, webhook_url=receiver.url())
        failing = await home.tasks.submit(image_request(model="broken"), OTHER_OWNER, webhook_url=receiver.url())
        unnamed = await home.tasks.submit(image_request(), OWNER)
        await home.wait_until(running.id, lambda task: task.state == "running")
        await home.wait_finished(unnamed.id)
        for task in (queued, running):
            await home.tasks.cancel(task.id, OWNER)
        calls = await receiver.until(3)
        await asyncio.sleep(1.5)
    assert {(call.event["data"]["id"], call.event["type"]) for call in calls} == {
        (running.id, "image.cancelled"),
        (queued.id, "image.cancelled"),
        (failing.id, "image.failed"),
    }
    assert len(calls) == 3 and not any("webhook-signature" in call.headers for call in calls)


@pytest.mark.usefixtures("short_waits")
async def test_failed_attempts_are_repeated_with_the_same_id(
    triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    away = web.Response(status=302, headers={"Location": receiver.url("elsewhere")})
    receiver.responses += [web.Response(status=500), away]
    async with task_harness(triton.url, tmp_path, **SIGNED) as home:
        task = await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url())
        calls = await receiver.until(3)
        await asyncio.sleep(1.5)
        metrics = home.metrics.exposition().decode()
    assert len(calls) == 3, "an event was sent again after the receiver had confirmed it"
    assert {call.path for call in calls} == {"/hook"}, "a redirect was followed"
    assert {call.headers["webhook-id"] for call in calls} == {task.id.replace("task_", "evt_")}
    assert len({call.body for call in calls}) == 1
    for call in calls:
        OPENAI.webhooks.verify_signature(call.body, call.headers, secret=SECRET)
    assert 'tritonic_webhooks_total{outcome="failed"} 2.0' in metrics
    assert 'tritonic_webhooks_total{outcome="delivered"} 1.0' in metrics


@pytest.mark.usefixtures("short_waits")
async def test_attempts_end_when_the_receiver_is_gone_and_after_the_limit(
    triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.responses += [web.Response(status=410)]
    async with task_harness(triton.url, tmp_path, **UNSIGNED) as home:
        await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url())
        await receiver.until(1)
        receiver.responses += [web.Response(status=500)] * 50
        home.tasks.webhooks._retry_seconds = 0.01
        await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url())
        await receiver.until(2)
        await asyncio.sleep(2.5)
        assert len(receiver.calls) == 2
        assert 'tritonic_webhooks_total{outcome="abandoned"} 2.0' in home.metrics.exposition().decode()


async def test_event_survives_kills_of_the_gateway(
    triton: FakeTriton, database: str, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    """The first kill comes while the receiver does not respond, the second one while the next attempt waits."""
    receiver.responses += [None, web.Response(status=503)]
    gateway = TaskGateway(
        tmp_path / "state", triton.url, database, webhook_secret=SECRET, webhook_allowed_hosts="127.0.0.1"
    )
    try:
        await gateway.start()
        id = await gateway.submit("a red square", webhook_url=receiver.url())
        for count in (1, 2):
            await receiver.until(count, seconds=30)
            await asyncio.sleep(0.3)
            gateway.kill()
            assert len(receiver.calls) == count
            await gateway.start()
        calls = await receiver.until(3, seconds=30)
        assert (await gateway.tasks())[0]["state"] == "completed"
    finally:
        await gateway.close()
    for call in calls:
        event: Any = OPENAI.webhooks.unwrap(call.body, call.headers, secret=SECRET)
        assert (event.type, event.data.id) == ("image.completed", id)
    assert len({call.headers["webhook-id"] for call in calls}) == 1


async def test_slow_receivers_delay_neither_tasks_nor_other_owners(
    triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.responses += [None] * 4
    async with task_harness(triton.url, tmp_path, **UNSIGNED) as home:
        tasks = [await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url()) for _ in range(6)]
        for task in tasks:
            assert (await home.wait_finished(task.id)).state == "completed"
        await receiver.until(4)
        await asyncio.sleep(1.5)
        assert len(receiver.calls) == receiver.most_open == 4
        other = await home.tasks.submit(image_request(), OTHER_OWNER, webhook_url=receiver.url())
        assert (await home.wait_finished(other.id, OTHER_OWNER)).state == "completed"
        assert (await receiver.until(5))[4].event["data"]["id"] == other.id


@pytest.mark.usefixtures("short_waits")
async def test_receiver_that_never_responds_is_given_up(
    triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "_TIMEOUT_SECONDS", 0.3)
    receiver.responses += [None]
    async with task_harness(triton.url, tmp_path, **UNSIGNED) as home:
        await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url())
        first, second = await receiver.until(2)
    assert first.body == second.body


@pytest.mark.usefixtures("short_waits")
async def test_private_addresses_are_not_reached(triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver) -> None:
    async with task_harness(triton.url, tmp_path) as home:
        for url in (
            receiver.url(),
            "http://127.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "https://user:password@hooks.example/",
            "ftp://hooks.example/",
            "hooks.example/path",
            "http://hooks.example:99999/",
            "https://hooks.example/" + "a" * 2048,
        ):
            with pytest.raises(InvalidRequest) as refused:
                await home.tasks.submit(image_request(), OWNER, webhook_url=url)
            assert refused.value.param == "webhook_url" and "user:password" not in refused.value.message
        # What a name leads to is known when the event is sent.
        task = await home.tasks.submit(image_request(), OWNER, webhook_url=f"http://localhost:{receiver.port}/")
        await home.wait_finished(task.id)
        async with asyncio.timeout(10):
            while 'outcome="failed"' not in home.metrics.exposition().decode():
                await asyncio.sleep(0.05)
    assert receiver.calls == []


async def test_repeated_request_must_name_the_same_webhook(
    triton: FakeTriton, database: str, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with task_harness(triton.url, tmp_path, database, **UNSIGNED) as home:
        first = await home.tasks.submit(image_request(), OWNER, "key", receiver.url())
        again = await home.tasks.submit(image_request(), OWNER, "key", receiver.url())
        assert again.id == first.id
        for url in (None, receiver.url("another")):
            with pytest.raises(InvalidRequest, match="idempotency key"):
                await home.tasks.submit(image_request(), OWNER, "key", url)
        await receiver.until(1)
        await asyncio.sleep(1.5)
    assert len(receiver.calls) == 1


async def test_database_has_no_secret_and_forgets_webhooks_with_their_tasks(
    triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with task_harness(triton.url, tmp_path, **SIGNED) as home:
        task = await home.tasks.submit(image_request(), OWNER, webhook_url=receiver.url())
        await receiver.until(1)
        store = (await home.tasks._get_runtime()).store
        with closing(sqlite3.connect(tmp_path / "tasks.sqlite")) as connection:
            assert SECRET.removeprefix("whsec_") not in "\n".join(connection.iterdump())
            async with asyncio.timeout(10):
                while (
                    await store.delete_older_than(-1) or connection.execute("SELECT 1 FROM workflow_status").fetchone()
                ):
                    await asyncio.sleep(0.1)
        assert await store.find(task.id, OWNER) is None


@pytest.mark.usefixtures("short_waits")
async def test_deleted_task_takes_its_webhook_along(
    triton: FakeTriton, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.responses += [web.Response(status=500)] * 100
    async with task_harness(triton.url, tmp_path, **UNSIGNED) as home:
        task = await home.tasks.submit(image_request(), OWNER, "key", receiver.url())
        await receiver.until(2)
        await home.tasks.delete(task.id, OWNER)
        await asyncio.sleep(1.5)
        count = len(receiver.calls)
        await asyncio.sleep(2.5)
        assert len(receiver.calls) == count
        receiver.responses.clear()
        again = await home.tasks.submit(image_request(), OWNER, "key", receiver.url())
        await receiver.until(count + 1)
    assert again.id == task.id
