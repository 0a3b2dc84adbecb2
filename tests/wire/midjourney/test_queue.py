"""Tasks that wait, fail and are cancelled, and prompts that are refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.wire.midjourney.requests import KEY, fetch, finished, post, run_drawing, submitted

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_waiting_failing_and_cancelled_tasks(tmp_path: Path) -> None:
    aliases = {"midjourney": "slow", "niji-journey": "tired"}
    options: dict[str, Any] = {
        "tasks_concurrency": 1,
        "midjourney_queue_code": True,
        "midjourney_banned_words": ["cat", "dog"],
    }
    async with run_drawing(tmp_path, model_aliases=aliases, tasks_per_key=4, **options) as (_, gateway):
        failing = await submitted(gateway, "imagine", prompt="x", botType="NIJI_JOURNEY")
        failed = await finished(gateway, failing, "FAILURE")
        assert failed["failReason"] == "The engine stopped." and failed["buttons"] == []
        running = await submitted(gateway, "imagine", prompt="x")
        while (await fetch(gateway, running))["status"] != "IN_PROGRESS":
            pass
        results = [await post(gateway, "/mj/submit/imagine", {"prompt": "x"}) for _ in range(4)]
        assert [result["code"] for result in results] == [1, 22, 22, 23]
        assert [result["properties"].get("numberOfQueues") for result in results] == [None, 1, 2, None]
        queue = (await gateway.http.get("/mj/task/queue", headers=KEY)).json()
        assert [task["id"] for task in queue] == [result["result"] for result in results[:3]]
        for id in (running, *(task["id"] for task in queue)):
            assert (await post(gateway, f"/mj/task/{id}/cancel", {}))["code"] == 1
        assert (await finished(gateway, running, "CANCEL"))["progress"] == ""
        again = await post(gateway, f"/mj/task/{running}/cancel", {})
        assert (again["code"], again["status"]) == (4, 200)
        acted = await post(gateway, "/mj/submit/change", {"taskId": running, "action": "UPSCALE", "index": 1})
        assert (acted["code"], acted["status"]) == (4, 200)
        banned = await post(gateway, "/mj/submit/imagine", {"prompt": "a Cat, asleep"})
        assert (banned["code"], banned["result"]) == (24, None)
        assert banned["properties"] == {"promptEn": "a Cat, asleep", "bannedWord": "Cat"}
