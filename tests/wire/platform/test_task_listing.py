"""Tasks of a platform: only the key that created them can list and cancel them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.dialects.platform import response_models
from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

TASKS, OTHER_TASKS = "/one/v1/images", "/other/v1/images"
KEY = {"Authorization": "Bearer sk-a"}
DRAWING = [
    ScriptedModel("slow", (DrawImages(400, pause=0.05),), is_image_model=True),
    ScriptedModel("quick", (DrawImages(2),), is_image_model=True),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton(DRAWING).start()
    yield triton
    await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    platforms = {"one": {"keys": ["sk-a", "sk-b"]}, "other": {"keys": ["sk-a"]}}
    state: Path = tmp_path_factory.mktemp("state")
    async with run_gateway(triton.url, platforms=platforms, state=state) as gateway:
        yield gateway


def parse_answer(response: httpx.Response, model: Any) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    validate_exactly(model, response.content)
    return response.json()


async def create_task(gateway: RunningGateway) -> Any:
    """Create a task. The first creates the database; on a busy machine, that takes longer than requests wait."""
    body = {"prompt": "a red circle", "model": "slow", "async": True}
    async with asyncio.timeout(90):
        while (response := await gateway.http.post(f"{TASKS}/generations", json=body, headers=KEY)).status_code == 503:
            pass
    return parse_answer(response, response_models.ImageTask)


async def list_tasks(gateway: RunningGateway, path: str = TASKS, headers: Any = KEY, **query: Any) -> Any:
    return parse_answer(await gateway.http.get(path, headers=headers, params=query), response_models.ImageTaskList)


async def test_a_new_platform_has_no_tasks(gateway: RunningGateway) -> None:
    assert await list_tasks(gateway) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_deleting_a_task_cancels_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    task = await create_task(gateway)
    await triton.call("slow", 0, seconds=20)
    stopped = parse_answer(await gateway.http.delete(f"{TASKS}/{task['id']}", headers=KEY), response_models.ImageTask)
    assert stopped == {**task, "status": "cancelled"}
    await triton.cancelled_call("slow", 0)
    again = parse_answer(await gateway.http.delete(f"{TASKS}/{task['id']}", headers=KEY), response_models.ImageTask)
    assert again == stopped


async def test_tasks_are_listed_in_pages(gateway: RunningGateway) -> None:
    before = [task["id"] for task in (await list_tasks(gateway))["data"]]
    created = [(await create_task(gateway))["id"] for _ in range(3)]
    expected = [*created[::-1], *before]
    page = await list_tasks(gateway, limit=2)
    assert ([task["id"] for task in page["data"]], page["has_more"]) == (expected[:2], True)
    assert (page["first_id"], page["last_id"]) == tuple(expected[:2])
    next_page = await list_tasks(gateway, after=page["last_id"])
    assert ([task["id"] for task in next_page["data"]], next_page["has_more"]) == (expected[2:], False)
    for id in created:
        parse_answer(await gateway.http.delete(f"{TASKS}/{id}", headers=KEY), response_models.ImageTask)
    assert [task["id"] for task in (await list_tasks(gateway, status="cancelled"))["data"]] == expected
    assert (await list_tasks(gateway, status="completed"))["data"] == []


async def test_other_keys_and_platforms_do_not_see_a_task(gateway: RunningGateway) -> None:
    id = (await create_task(gateway))["id"]
    other_key = {"Authorization": "Bearer sk-b"}
    assert (
        (await list_tasks(gateway, headers=other_key))["data"] == (await list_tasks(gateway, OTHER_TASKS))["data"] == []
    )
    for path, key in ((TASKS, other_key), (OTHER_TASKS, KEY)):
        check_error(await gateway.http.delete(f"{path}/{id}", headers=key), 404, code="task_not_found")
    check_error(await gateway.http.delete(f"{TASKS}/{id}"), 401, "authentication_error", "invalid_api_key")
    check_error(await gateway.http.get(TASKS), 401, "authentication_error", "invalid_api_key")
    assert (
        parse_answer(await gateway.http.delete(f"{TASKS}/{id}", headers=KEY), response_models.ImageTask)["status"]
        == "cancelled"
    )


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [("limit=0", 400, "limit"), ("limit=101", 400, "limit"), ("limit=x", 400, "limit"), ("status=done", 400, "status")],
)
async def test_invalid_queries_are_named(gateway: RunningGateway, query: str, status: int, param: str) -> None:
    check_error(await gateway.http.get(f"{TASKS}?{query}", headers=KEY), status, param=param)


async def test_a_page_after_an_unknown_task_is_not_found(gateway: RunningGateway) -> None:
    check_error(await gateway.http.get(f"{TASKS}?after=task_1", headers=KEY), 404, code="task_not_found")


async def test_a_task_is_accepted_while_triton_is_down(gateway: RunningGateway, triton: FakeTriton) -> None:
    body = {"prompt": "a red circle", "model": "quick"}
    await triton.stop()
    try:
        await gateway.until("/health/ready", lambda response: response.status_code == 503)
        check_error(await gateway.http.post(f"{TASKS}/generations", json=body, headers=KEY), 503, "overloaded_error")
        response = await gateway.http.post(f"{TASKS}/generations?async=true", json=body, headers=KEY)
        task = parse_answer(response, response_models.ImageTask)
    finally:
        await triton.start()
    async with asyncio.timeout(30):
        while parse_answer(await gateway.http.get(f"{TASKS}/{task['id']}", headers=KEY), response_models.ImageTask) != {
            **task,
            "status": "completed",
        }:
            await asyncio.sleep(0.05)
