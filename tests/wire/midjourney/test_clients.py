"""Requests of new-api (as a relay) and of chatgpt-web-midjourney-proxy, field by field, and what they read."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.wire.gateway_server import RunningGateway
from tests.wire.midjourney.requests import KEY, data_url, fetch, finished, post, run_drawing

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with run_drawing(tmp_path_factory.mktemp("state")) as (_, running):
        yield running


async def sub_task(
    gateway: RunningGateway, path: str, data: dict[str, Any], modal: dict[str, Any] | None = None
) -> str:
    """Do what the web client's `subTask` does, and return the id that it polls."""
    result = await post(gateway, path, data)
    if modal and result["result"]:
        result = await post(gateway, "/mj/submit/modal", {**modal, "taskId": result["result"]})
    elif "confirm" in result["description"]:
        final = result["properties"]["finalPrompt"]
        result = await post(gateway, "/mj/submit/modal", {"taskId": result["result"], "prompt": final})
    if result["code"] == 21:
        result = await post(gateway, "/mj/submit/modal", {"taskId": result["result"]})
    assert result["code"] in (1, 22), result
    return result["result"]


async def test_the_web_client(gateway: RunningGateway) -> None:
    drawing = {
        "base64Array": [],
        "notifyHook": "",
        "prompt": "a red circle --ar 1:1",
        "state": "",
        "botType": "MID_JOURNEY",
    }
    id = await sub_task(gateway, "/mj/submit/imagine", drawing)
    grid = await finished(gateway, id)
    assert grid["progress"] == "100%" and grid["failReason"] is None and grid["properties"]["finalPrompt"]
    changed = {"action": "UPSCALE", "index": 2, "taskId": id}
    first = await sub_task(gateway, "/mj/submit/change", changed)
    assert await sub_task(gateway, "/mj/submit/change", changed) == first, "a second press fails"
    single = await finished(gateway, first)
    for start, modal in (
        ("MJ::CustomZoom", {"prompt": "a red circle --zoom 2"}),
        ("MJ::Inpaint", {"prompt": "a red circle", "maskBase64": data_url("white")}),
        ("MJ::CustomZoom", None),
        ("MJ::JOB::pan_left", None),
    ):
        custom_id = next(b["customId"] for b in single["buttons"] if b["customId"].startswith(start))
        body = {"chooseSameChannel": True, "customId": custom_id, "taskId": first}
        await finished(gateway, await sub_task(gateway, "/mj/submit/action", body, modal))
    seed = (await gateway.http.get(f"/mj/task/{id}/image-seed", headers=KEY)).json()
    assert int(seed["result"]) >= 0
    gallery = await gateway.http.post("/mj/task/list-by-condition", json={"ids": [1320098173412546]}, headers=KEY)
    assert gallery.json() == []


async def test_the_relay(gateway: RunningGateway) -> None:
    request = {
        "prompt": "a red circle",
        "customId": "",
        "botType": "",
        "notifyHook": "",
        "action": "",
        "index": 0,
        "state": "",
        "taskId": "",
        "base64Array": None,
        "content": "",
        "maskBase64": "",
        "accountFilter": {"modes": ["FAST"], "channelId": "", "instanceId": "", "remark": "", "remix": True},
    }
    result = await post(gateway, "/mj-turbo/mj/submit/imagine", request, {"mj-api-secret": "sk-a"})
    assert result["code"] == 1 and isinstance(result["result"], str)
    await finished(gateway, result["result"])
    polled = await gateway.http.post("/mj/task/list-by-condition", json={"ids": [result["result"]]}, headers=KEY)
    (task,) = polled.json()
    texts = (
        "id",
        "action",
        "customId",
        "botType",
        "prompt",
        "promptEn",
        "description",
        "state",
        "imageUrl",
        "videoUrl",
    )
    for name in (*texts, "status", "progress", "failReason", "maskBase64"):
        assert task[name] is None or isinstance(task[name], str), name
    assert all(task[name] is None or type(task[name]) is int for name in ("submitTime", "startTime", "finishTime"))
    assert task["videoUrls"] is None and set(task["properties"]) == {"finalPrompt", "finalZhPrompt"}
    assert task["status"] == "SUCCESS" and not task["failReason"], "the relay takes a reason for a failure"
    content = {**request, "prompt": "", "content": f"{task['id']} V1"}
    varied = await post(gateway, "/mj/submit/simple-change", content)
    assert varied["code"] == 1 and (await fetch(gateway, varied["result"]))["action"] == "VARIATION"
