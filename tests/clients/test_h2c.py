"""Clients that offer HTTP/2 with every request (`Upgrade: h2c`) are answered in HTTP/1.1: Java's own, and curl."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.subprocesses import output_of
from tests.fakes.scripted_model import HELLO
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway

TEXT = "".join(str(say.text) for say in HELLO)
JAVA = Path(__file__).with_name("java") / "Client.java"


async def test_the_client_of_java(gateway: RunningGateway, triton: FakeTriton) -> None:
    java = shutil.which("java")
    if java is None:
        pytest.skip("there is no Java: apt-get install default-jre-headless")
    output = await output_of(java, "-Dfile.encoding=UTF-8", "-XX:TieredStopAtLevel=1", str(JAVA), gateway.url)
    answers = [line.split(" ", 3) for line in output.splitlines()]
    assert [answer[:3] for answer in answers] == [[kind, "200", "HTTP_1_1"] for kind in ["whole"] * 3 + ["stream"] * 2]
    for answer in answers[:3]:
        assert json.loads(answer[3])["choices"][0]["message"]["content"] == TEXT
    for answer in answers[3:]:
        *events, last = answer[3].split("\t")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert (text, last) == (TEXT, "data: [DONE]")
    assert len(triton.calls) == 5 and all("Grüße" in call.prompt for call in triton.calls)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_curl(gateway: RunningGateway, triton: FakeTriton, stream: bool) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in await output_of(curl, "--version"):
        pytest.skip("there is no curl that speaks HTTP/2: apt-get install curl")
    body = json.dumps({"model": "hello", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
    asks = ("--json", body, f"{gateway.url}/v1/chat/completions")
    output = await output_of(
        curl, "--silent", "--verbose", "--http2", *asks, "--next", "--silent", "--verbose", "--http2", *asks
    )
    assert "> Upgrade: h2c" in output and output.count("< HTTP/1.1 200 OK") == 2
    assert output.count("data: [DONE]" if stream else '"finish_reason":"stop"') == 2
    assert len(triton.calls) == 2
