"""Golden files of videos: `golden/video/*.json`, in the format of `test_golden`. `<picture>` is a PNG in a data URL."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.test_golden import GoldenComparison
from tests.wire.openai.video_requests import KEY, OTHER_KEY, create, run_filming

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOLDEN = sorted((Path(__file__).parent / "golden" / "video").glob("*.json"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with run_filming(tmp_path_factory.mktemp("state")) as (_, running):
        await create(running)  # the first task creates the database
        yield running


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
async def test_responses_equal_the_golden_files(gateway: RunningGateway, path: Path) -> None:
    picture = "data:image/png;base64," + base64.b64encode(encoded_image()).decode()
    golden = json.loads(path.read_text().replace("<picture>", picture))
    request, answer = golden["request"], golden["answer"]
    key = OTHER_KEY if path.stem == "video-empty-list" else KEY
    response = await gateway.http.request(request["method"], request["path"], json=request["json"], headers=key)
    assert response.status_code == answer["status"], response.text
    for name, value in answer["headers"].items():
        assert response.headers.get(name) == value, name
    GoldenComparison(gateway.url).check(response.json(), answer["body"])


async def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 9
