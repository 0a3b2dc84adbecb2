"""`notifyHook`: the changes of a task in their order, signed, and repeated while the receiver fails."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openai import OpenAI

from gateway.dialects.midjourney.view import MidjourneyTask
from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.fakes.webhook_receiver import ReceivedCall, WebhookReceiver
from tests.wire.midjourney.requests import fetch, finished, post, run_drawing, submitted
from tests.wire.openai.conformance import validate_exactly

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STEADY = ScriptedModel("steady", (DrawImages(8, pause=0.7),), is_image_model=True)


async def test_changes_are_sent_in_order(tmp_path: Path) -> None:
    receiver = await WebhookReceiver(responses=[web.Response(status=204), web.Response(status=500)]).start()
    settings: dict[str, Any] = {"webhook_secret": [SECRET], "webhook_allowed_hosts": ["127.0.0.1"], "model_aliases": {}}
    try:
        async with run_drawing(tmp_path, [STEADY], **settings) as (_, gateway):
            id = await submitted(gateway, "imagine", prompt="x", notifyHook=receiver.url("hook"), state="mine")
            await finished(gateway, id)
            calls = list(await _until(receiver, id))
            body = {"taskId": id, "action": "UPSCALE", "index": 1, "notifyHook": receiver.url("hook")}
            await _until(receiver, (await post(gateway, "/mj/submit/change", body))["result"])
            shown = await fetch(gateway, id)
    finally:
        await receiver.stop()
    for call in calls:
        validate_exactly(MidjourneyTask, call.body)
        OpenAI(api_key="none").webhooks.verify_signature(call.body, call.headers, secret=SECRET)
    tasks = [call.event for call in calls if call.event["id"] == id]
    assert [task["status"] for task in tasks] == ["IN_PROGRESS"] * (len(tasks) - 1) + ["SUCCESS"]
    assert tasks[0]["progress"] == "0%" and all(task["state"] == "mine" for task in tasks)
    percents = [int(task["progress"].removesuffix("%")) for task in tasks]
    assert len(percents) >= 4 and percents == sorted(percents)
    assert len({call.headers["webhook-id"] for call in calls}) >= len(set(percents))
    assert tasks[-1]["buttons"] == shown["buttons"] and tasks[-1]["imageUrl"].startswith(gateway.url)


async def _until(receiver: WebhookReceiver, id: str) -> list[ReceivedCall]:
    """Return the calls once one tells that the task `id` has succeeded."""
    async with asyncio.timeout(20):
        while not any((call.event["id"], call.event["status"]) == (id, "SUCCESS") for call in receiver.calls):
            await asyncio.sleep(0.02)
    return receiver.calls
