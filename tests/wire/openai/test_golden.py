"""Requests and the answers to them, as documents show them: `golden/*.json`.

`body` must be the whole answer and `events` every event of the stream. Placeholders: `<id:chatcmpl>` an id with this
prefix, the same wherever it stands; `<now>` this moment in Unix seconds; `<later>` a later one; `<text>` any text;
`<list>` any list; `<url>` the address of the gateway.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import events

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


class GoldenComparison:
    """Compares a response with the expected one, and remembers the ids that it finds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ids: dict[str, str] = {}

    def check(self, actual: Any, expected: Any, path: str = "") -> None:
        if isinstance(expected, dict):
            assert isinstance(actual, dict), path
            assert list(actual.keys() ^ expected.keys()) == [], f"{path}: {actual}"
            for key, value in expected.items():
                self.check(actual[key], value, f"{path}.{key}")
        elif isinstance(expected, list):
            assert isinstance(actual, list) and len(actual) == len(expected), f"{path}: {actual}"
            for at, value in enumerate(expected):
                self.check(actual[at], value, f"{path}[{at}]")
        elif isinstance(expected, str) and expected.startswith("<id:"):
            assert re.fullmatch(rf"{expected[4:-1]}[-_][A-Za-z0-9]{{12,}}", actual), path
            assert self.ids.setdefault(expected, actual) == actual, path
        elif expected == "<now>":
            assert type(actual) is int and abs(actual - time.time()) < 60, path
        elif expected == "<later>":
            assert type(actual) is int and actual > time.time(), path
        elif expected == "<text>":
            assert isinstance(actual, str) and actual, path
        elif expected == "<list>":
            assert isinstance(actual, list), path
        elif isinstance(expected, str):
            assert actual == expected.replace("<url>", self.url), path
        else:
            assert type(actual) is type(expected) and actual == expected, path


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
async def test_responses_equal_the_golden_files(gateway: RunningGateway, path: Path) -> None:
    golden = json.loads(path.read_text())
    request, answer = golden["request"], golden["answer"]
    response = await gateway.http.request(
        request["method"], request["path"], json=request.get("json"), headers=request.get("headers")
    )
    assert response.status_code == answer["status"], response.text
    for name, value in answer["headers"].items():
        assert response.headers.get(name) == value, name
    if "events" in answer:
        GoldenComparison(gateway.url).check(events(response), answer["events"])
    else:
        GoldenComparison(gateway.url).check(response.json(), answer["body"])


async def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 12
