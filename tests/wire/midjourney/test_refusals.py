"""Refused requests: HTTP 200 with a code, or a 4xx in the same shape, and never a failure of the gateway."""

import copy
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.dialects.midjourney.errors import SubmitResult
from tests.wire.gateway_server import RunningGateway
from tests.wire.midjourney.requests import KEY, PAINTER, data_url, post, run_drawing
from tests.wire.openai.conformance import validate_exactly

NO_TASK = "task_" + "0" * 32
REQUESTS: dict[str, dict[str, Any]] = {
    "/mj/submit/imagine": {
        "prompt": "x --seed 1",
        "base64Array": [data_url()],
        "state": "s",
        "botType": "NIJI_JOURNEY",
    },
    "/mj/submit/blend": {"base64Array": [data_url(), data_url()], "dimensions": "SQUARE"},
    "/mj/submit/describe": {"base64": data_url(), "language": "en"},
    "/mj/submit/shorten": {"prompt": "x"},
    "/mj/submit/change": {"taskId": NO_TASK, "action": "UPSCALE", "index": 1, "notifyHook": "https://hooks.example/"},
    "/mj/submit/simple-change": {"content": f"{NO_TASK} U1"},
    "/mj/submit/action": {"taskId": NO_TASK, "customId": f"MJ::JOB::upsample::1::{NO_TASK}"},
    "/mj/submit/modal": {"taskId": NO_TASK, "prompt": "x", "maskBase64": data_url()},
    "/mj/submit/edits": {"prompt": "x", "image": data_url(), "maskBase64": data_url("white")},
    "/mj/submit/video": {"prompt": "x", "image": data_url(), "motion": "low", "taskId": NO_TASK, "index": 0},
    "/mj/submit/upload-discord-images": {"base64Array": [data_url()]},
    "/mj/insight-face/swap": {"sourceBase64": data_url(), "targetBase64": data_url()},
    "/mj/task/list-by-condition": {"ids": [NO_TASK]},
}
ODD: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        2**64,
        0.5,
        "",
        " ",
        "\x00",
        "a" * 20_000,
        "--nothing 1",
        "--ar 0:1",
        "::",
        "https://",
        "data:,",
    ),
    *([], {}, [[]], [None], [""] * 300, {"": ""}, "\ud800", "MJ::JOB::upsample::9::x", "x U9"),
]

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with run_drawing(tmp_path_factory.mktemp("state"), [PAINTER], model_aliases={}) as (_, running):
        await post(running, "/mj/submit/imagine", {"prompt": "x"})
        yield running


async def test_odd_bodies_are_refused_in_the_shape_of_the_dialect(gateway: RunningGateway) -> None:
    chosen = random.Random(7)
    wholes: list[Any] = [[], "x", {}, None]
    bodies: list[tuple[str, Any]] = [(path, value) for path in REQUESTS for value in wholes]
    for path, body in REQUESTS.items():
        for name in body:
            for value in chosen.sample(ODD, 3):
                bodies.append((path, {**copy.deepcopy(body), name: value}))
    for path, body in bodies:
        response = await gateway.http.post(path, content=json.dumps(body), headers=KEY)
        assert response.status_code in (200, 400, 404, 413), (path, body, response.text)
        if response.status_code != 200 or not path.startswith("/mj/task"):
            validate_exactly(SubmitResult, response.content)
            assert response.json()["code"] in (1, 3, 4, 9), (path, body, response.text)
            assert len(response.content) < 20_000


@pytest.mark.parametrize(
    ("path", "body", "code", "status", "words"),
    [
        ("imagine", {"prompt": "x --nothing 1 --seed 2 --else"}, 4, 200, "Unknown parameters: --nothing, --else."),
        ("imagine", {"prompt": "x --seed many"}, 4, 200, "--seed"),
        ("imagine", {"prompt": "x --tile and more"}, 4, 200, "end of the prompt"),
        ("imagine", {"prompt": "--ar 1:1"}, 4, 200, "'prompt' must not be empty."),
        ("imagine", {}, 4, 200, "'prompt' must not be empty."),
        ("imagine", {"prompt": "x", "base64Array": ["data:image/png;base64,AAAA"]}, 4, 400, "base64Array"),
        ("imagine", {"prompt": "x", "notifyHook": "http://127.0.0.1/"}, 4, 400, "notifyHook"),
        ("imagine", {"prompt": 5}, 4, 400, "prompt"),
        ("change", {"taskId": NO_TASK, "action": "UPSCALE", "index": 1}, 3, 404, "does not exist"),
        ("change", {"taskId": NO_TASK, "action": "VARIATION"}, 4, 200, "'index' is required"),
        ("action", {"taskId": 1320098173412546, "customId": "MJ::BOOKMARK"}, 3, 404, "does not exist"),
        ("blend", {"base64Array": [data_url()]}, 4, 200, "2 to 5 pictures, not 1"),
        ("describe", {"base64": data_url()}, 9, 200, "No model that can describe images is served."),
        ("video", {"prompt": "x"}, 9, 200, "No model that can generate videos is served."),
        ("shorten", {"prompt": "x"}, 9, 200, "log probabilities"),
        ("shorten", {"prompt": "x " * 61}, 4, 200, "1 to 60 words, not 61"),
    ],
)
async def test_reasons(gateway: RunningGateway, path: str, body: Any, code: int, status: int, words: str) -> None:
    result = await post(gateway, f"/mj/submit/{path}", body)
    assert (result["code"], result["status"]) == (code, status), result
    assert words in result["description"] and result["result"] is None


async def test_keys_modes_and_unknown_paths(gateway: RunningGateway) -> None:
    for headers in ({}, {"mj-api-secret": "wrong"}, {"Authorization": "Bearer wrong"}):
        result = await post(gateway, "/mj/submit/imagine", {"prompt": "x"}, headers)
        assert (result["status"], result["code"]) == (401, 4)
    for path, status in (("/mj-slow/mj/submit/imagine", 404), ("/mj/nothing", 404), ("/mj-fast/mj/nothing", 404)):
        result = await post(gateway, path, {"prompt": "x"})
        assert (result["status"], result["code"]) == (status, 3)
    for mode in ("mj-fast", "mj-turbo", "mj-relax"):
        assert (await post(gateway, f"/{mode}/mj/submit/imagine", {"prompt": "x"}))["code"] == 1
    response = await gateway.http.get("/mj/submit/imagine", headers=KEY)
    assert (response.status_code, response.json()["code"]) == (405, 4)
