"""Golden files of transcriptions: `golden/audio/*.json`, in the format of `test_golden`.

`<sound>` in a request is a recording in a data URL: half a second of silence, an utterance of 1.2 seconds, 0.8 seconds
of silence, an utterance of 2 seconds, and half a second of silence.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.scripted_model import Listen, ScriptedModel
from tests.fakes.sound_files import sound_file
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.test_golden import GoldenComparison
from tests.wire.openai.text_requests import events

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOLDEN = sorted((Path(__file__).parent / "golden" / "audio").glob("*.json"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def listener() -> AsyncIterator[RunningGateway]:
    parameters: dict[str, str | None] = {"languages": '["en", "de"]'}
    model = ScriptedModel("ear", (Listen(),), is_transcription_model=True, parameters=parameters)
    triton = await FakeTriton([model]).start()
    async with run_gateway(triton.url, model_aliases={"whisper-1": "ear"}) as running:
        yield running
    await triton.stop()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
async def test_responses_equal_the_golden_files(listener: RunningGateway, path: Path) -> None:
    sound = "data:audio/flac;base64," + base64.b64encode(sound_file("flac", "flac", rate=8_000)).decode()
    golden = json.loads(path.read_text().replace("<sound>", sound))
    request, answer = golden["request"], golden["answer"]
    response = await listener.http.request(request["method"], request["path"], json=request["json"])
    assert response.status_code == answer["status"], response.text
    for name, value in answer["headers"].items():
        assert response.headers.get(name) == value, name
    comparison = GoldenComparison(listener.url)
    if "events" in answer:
        comparison.check(events(response), answer["events"])
    elif "text" in answer:
        assert response.text == answer["text"]
    else:
        comparison.check(response.json(), answer["body"])


async def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 8
