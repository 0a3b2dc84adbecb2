"""Midjourney tasks from the submission to the pictures: grids, their buttons, and what clients read."""

import time
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from tests.fakes.image_model import color_of_seed
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.midjourney.requests import (
    KEY,
    OTHER_KEY,
    button,
    data_url,
    drawn,
    fetch,
    finished,
    picture,
    post,
    run_drawing,
    submitted,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

_module = pytest_asyncio.fixture(scope="module", loop_scope="session")
Drawing: TypeAlias = tuple[FakeTriton, RunningGateway]


@_module
async def drawing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Drawing]:
    async with run_drawing(tmp_path_factory.mktemp("state")) as running:
        yield running


@_module
async def grid(drawing: Drawing) -> dict[str, Any]:
    _, gateway = drawing
    return await drawn(gateway, prompt="a red circle --seed 5 --ar 2:1 --stylize 50", state="s")


async def test_a_grid_has_four_pictures(drawing: Drawing, grid: dict[str, Any]) -> None:
    _, gateway = drawing
    assert (grid["action"], grid["progress"], grid["state"]) == ("IMAGINE", "100%", "s")
    assert grid["prompt"] == "a red circle --seed 5 --ar 2:1 --stylize 50"
    assert "--stylize" in grid["description"] and "--seed" not in grid["description"]
    assert grid["finishTime"] >= grid["startTime"] >= grid["submitTime"] > time.time() * 1000 - 600_000
    labels = [b["label"] or b["emoji"] for b in grid["buttons"]]
    assert labels == ["U1", "U2", "U3", "U4", "🔄", "V1", "V2", "V3", "V4"]
    assert button(grid, "U1") == f"MJ::JOB::upsample::1::{grid['id']}"
    shown = await picture(gateway, grid["imageUrl"])
    width, height = shown.size
    quarters = [shown.getpixel((x * width // 4, y * height // 4)) for y in (1, 3) for x in (1, 3)]
    assert quarters == [color_of_seed(5 + index) for index in range(4)]
    result = (await gateway.http.get(f"/mj/task/{grid['id']}/image-seed", headers=KEY)).json()
    assert (result["code"], result["result"]) == (1, "5")


async def test_pictures_need_a_signature_or_the_key(drawing: Drawing, grid: dict[str, Any]) -> None:
    _, gateway = drawing
    path = f"/mj/image/{grid['id']}"
    statuses = [(await gateway.http.get(path, headers=headers)).status_code for headers in ({}, KEY, OTHER_KEY)]
    assert statuses == [401, 200, 404]
    assert (await gateway.http.get(f"{grid['imageUrl']}x")).status_code == 403
    other = await drawn(gateway)
    query = grid["imageUrl"].partition("?")[2]
    assert (await gateway.http.get(f"/mj/image/{other['id']}?{query}")).status_code == 403
    assert (await gateway.http.head(grid["imageUrl"])).headers["content-type"] == "image/png"


async def test_an_upscaled_picture_is_there_at_once(drawing: Drawing, grid: dict[str, Any]) -> None:
    _, gateway = drawing
    pressed = {"taskId": grid["id"], "customId": button(grid, "U2")}
    first = await post(gateway, "/mj/submit/action", pressed)
    assert first["code"] == 1
    task = await fetch(gateway, first["result"])
    assert (task["status"], task["action"], task["progress"]) == ("SUCCESS", "UPSCALE", "100%")
    assert (await picture(gateway, task["imageUrl"])).getpixel((1, 1)) == color_of_seed(6)
    began = time.monotonic()
    second = await post(gateway, "/mj/submit/change", {"taskId": grid["id"], "action": "UPSCALE", "index": 2})
    seconds = time.monotonic() - began
    assert (second["code"], second["result"]) == (21, first["result"])
    assert second["properties"]["status"] == "SUCCESS" and second["properties"]["imageUrl"]
    assert seconds < 0.5, "the kept result takes long"
    done = await finished(gateway, first["result"])
    assert (await picture(gateway, done["imageUrl"])).getpixel((1, 1)) == color_of_seed(6)
    assert [b["label"] or b["emoji"] for b in done["buttons"]][:3] == [
        "Vary (Subtle)",
        "Vary (Strong)",
        "Vary (Region)",
    ]
    assert not [b for b in done["buttons"] if b["label"].startswith("Upscale")], "no model upscales"


async def test_simple_changes(drawing: Drawing, grid: dict[str, Any]) -> None:
    triton, gateway = drawing
    varied = await finished(gateway, await submitted(gateway, "simple-change", content=f"{grid['id']} V3"))
    assert (varied["action"], len(varied["buttons"])) == ("VARIATION", 9)
    call = triton.calls[-1]
    assert call.tensors["prompt"] == [b"a red circle"] and 0 < call.tensors["strength"][0] < 1
    again = await finished(gateway, await submitted(gateway, "simple-change", content=f"{grid['id']} r"))
    assert again["action"] == "REROLL" and again["imageUrl"] != grid["imageUrl"]
    seed = (await gateway.http.get(f"/mj/task/{again['id']}/image-seed", headers=KEY)).json()["result"]
    assert seed != "5"
    wrong = await post(gateway, "/mj/submit/simple-change", {"content": "x U5"})
    assert (wrong["code"], wrong["status"]) == (4, 200)


async def test_every_button_of_a_picture_works(drawing: Drawing, grid: dict[str, Any]) -> None:
    _, gateway = drawing
    upscaled = await post(gateway, "/mj/submit/change", {"taskId": grid["id"], "action": "UPSCALE", "index": 1})
    single = await finished(gateway, upscaled["result"])
    actions = {}
    for pressed in single["buttons"]:
        body = {"taskId": single["id"], "customId": pressed["customId"], "state": "b"}
        result = await post(gateway, "/mj/submit/action", body)
        if result["code"] == 21:
            assert result["description"] == "Waiting for window confirm" and result["properties"]["remix"] is True
            waiting = await fetch(gateway, result["result"])
            assert (waiting["status"], waiting["progress"], waiting["finishTime"]) == ("MODAL", "0%", None)
            confirm = {
                "taskId": result["result"],
                "prompt": "a blue circle --zoom 1.5",
                "maskBase64": data_url("white"),
            }
            continued = await post(gateway, "/mj/submit/modal", confirm)
            assert (continued["code"], continued["result"]) == (1, result["result"])
            assert (await post(gateway, "/mj/submit/modal", confirm))["code"] == 1, "a repeated request is no failure"
        else:
            assert result["code"] == 1, (pressed, result)
        if result["result"] == single["id"]:
            assert pressed["customId"] == "MJ::BOOKMARK"
            continue
        task = await finished(gateway, result["result"])
        assert task["customId"] == pressed["customId"] and task["state"] == "b"
        actions[pressed["label"] or pressed["emoji"]] = task["action"]
        assert task["videoUrls"] if task["action"] == "VIDEO" else task["imageUrl"]
    assert actions == {
        "Vary (Subtle)": "LOW_VARIATION",
        "Vary (Strong)": "HIGH_VARIATION",
        "Vary (Region)": "INPAINT",
        "Zoom Out 2x": "ZOOM",
        "Zoom Out 1.5x": "ZOOM",
        "Custom Zoom": "CUSTOM_ZOOM",
        **dict.fromkeys(("⬅️", "➡️", "⬆️", "⬇️"), "PAN"),
        "Animate (High motion)": "VIDEO",
        "Animate (Low motion)": "VIDEO",
    }


async def test_blend_describe_edits_and_video(drawing: Drawing) -> None:
    _, gateway = drawing
    blended = await submitted(gateway, "blend", base64Array=[data_url("red"), data_url("blue")], dimensions="PORTRAIT")
    assert (await finished(gateway, blended))["action"] == "BLEND"
    described = await finished(gateway, await submitted(gateway, "describe", base64=data_url()))
    expected = "\n\n".join(f"{digit} A red circle." for digit in ("1️⃣", "2️⃣", "3️⃣", "4️⃣"))
    assert described["properties"]["finalPrompt"] == described["prompt"] == expected
    body = {"taskId": described["id"], "customId": button(described, "2️⃣")}
    from_text = await finished(gateway, await submitted(gateway, "action", **body))
    assert (from_text["action"], from_text["prompt"]) == ("IMAGINE", "A red circle.")
    edited = await submitted(gateway, "edits", prompt="blue", image=data_url(), maskBase64=data_url("white", (8, 8)))
    assert (await finished(gateway, edited))["action"] == "EDITS"
    filmed = await finished(gateway, await submitted(gateway, "video", prompt="it moves", image=data_url()))
    (url,) = filmed["videoUrls"]
    assert (await gateway.http.get(url["url"])).headers["content-type"] == "video/mp4"
    uploaded = await post(gateway, "/mj/submit/upload-discord-images", {"base64Array": [data_url()]})
    reused = await finished(gateway, await submitted(gateway, "imagine", prompt=f"{uploaded['result'][0]} blue --iw 2"))
    assert reused["status"] == "SUCCESS" and reused["description"] is None


async def test_a_prompt_is_shortened(drawing: Drawing) -> None:
    _, gateway = drawing
    task = await fetch(gateway, await submitted(gateway, "shorten", prompt="a very red circle on it --ar 1:1"))
    assert (task["action"], task["status"], task["imageUrl"]) == ("SHORTEN", "SUCCESS", None)
    heading, *texts = task["properties"]["finalPrompt"].split("\n\n")
    assert heading.startswith("Important words: **a** (")
    assert [text[:3] for text in texts] == ["1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣"][: len(texts)] and len(texts) > 2
    assert texts[0] == "1️⃣ a very red circle on", "the scripted model gives all words the same weight"
    body = {"taskId": task["id"], "customId": button(task, "2️⃣")}
    drawn_task = await finished(gateway, await submitted(gateway, "action", **body))
    assert drawn_task["prompt"] == texts[1][4:]


async def test_lists(drawing: Drawing, grid: dict[str, Any]) -> None:
    _, gateway = drawing
    ids = [grid["id"], "task_" + "0" * 32, 5]
    for path in ("list-by-condition", "list-by-ids"):
        found = await gateway.http.post(f"/mj-fast/mj/task/{path}", json={"ids": ids}, headers=KEY)
        assert [task["id"] for task in found.json()] == [grid["id"]]
    listed = (await gateway.http.get("/mj/task/list", headers=KEY)).json()
    shown = [task["id"] for task in listed]
    assert grid["id"] in shown and len(set(shown)) == len(shown)
    assert (await gateway.http.get("/mj/task/list", headers=OTHER_KEY)).json() == []
    response = await gateway.http.get(f"/mj/task/{grid['id']}/fetch", headers=OTHER_KEY)
    assert (response.status_code, response.json()["code"]) == (404, 3)
