"""The comparison with other servers: peers of the command line, the load, idle servers, rounds and ratios."""

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from benchmarks import peer_servers, peers
from benchmarks.peer_servers import PeerOptions, PeerServer
from benchmarks.peers import RunningPeer, busy_while_idle, parse_peer, prompts, run_load, table


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("vLLM=http://host:8000", RunningPeer("vLLM", "http://host:8000", "")),
        ("vLLM=http://host:8000/v1/", RunningPeer("vLLM", "http://host:8000", "")),
        ("my server=org/model@https://host/api", RunningPeer("my server", "https://host/api", "org/model")),
        ("a=b@c@http://host", RunningPeer("a", "http://host", "b@c")),
    ],
)
def test_a_peer_is_a_name_a_url_and_an_optional_model(text: str, peer: RunningPeer) -> None:
    assert parse_peer(text) == peer


@pytest.mark.parametrize("text", ["", "http://host", "name=host:8000", "=http://host", "name=model@host"])
def test_text_that_names_no_peer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=URL"):
        parse_peer(text)


def test_prompts_are_unique_and_depend_on_the_seed() -> None:
    first, same, other = (list(itertools.islice(prompts(seed), 200)) for seed in ("a", "a", "b"))
    assert first == same
    assert len(set(first) | set(other)) == 400
    assert all(len(text.split()) == peers.PROMPT_WORDS for text in first)


class ChatServer:
    """Answers each chat with `max_tokens` words, two in a chunk."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.bodies: list[dict[str, Any]] = []
        self.num_open = self.max_open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.Response(status=self.status, text="full")
        self.bodies.append(body := await request.json())
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in self._chunks(body["max_tokens"]):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        self.num_open -= 1
        return response

    async def _chunks(self, tokens: int) -> AsyncIterator[dict[str, Any]]:
        for _ in range(tokens // 2):
            await asyncio.sleep(0.001)
            yield {"choices": [{"delta": {"content": " word word"}, "finish_reason": None}]}
        yield {"choices": [{"delta": {}, "finish_reason": "length"}]}
        yield {"choices": [], "usage": {"completion_tokens": tokens}}


async def send_load(server: ChatServer, streams: int, seconds: float) -> list[Any]:
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", server.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            return await run_load(PeerServer("other", url, "named"), prompts("seed"), streams, seconds)
        finally:
            await runner.cleanup()


def test_the_load_keeps_its_number_of_streams_open_and_waits_for_all_answers() -> None:
    server = ChatServer()
    timings = asyncio.run(send_load(server, 4, 0.5))
    assert server.max_open == 4
    assert len(timings) == len(server.bodies) >= 4
    assert {timing.tokens for timing in timings} == {64}
    assert {len(timing.arrivals) for timing in timings} == {32}
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["ignore_eos"]) == ("named", 64, 0, True)
    assert len({body["messages"][0]["content"] for body in server.bodies}) == len(server.bodies)


def test_an_error_ends_the_measurement() -> None:
    with pytest.raises(RuntimeError, match="other answered 429 full"):
        asyncio.run(send_load(ChatServer(status=429), 2, 0.5))


def test_a_server_that_computes_while_idle_is_named_in_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep

    def wait_for_cpu(seconds: float) -> None:
        """Wait until the busy process has used a tenth of `seconds`, however many others share the cores."""
        end = servers[0].cpu() + seconds / 10
        while servers[0].cpu() < end:
            sleep(0.01)

    with (
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy,
        subprocess.Popen(
            [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE
        ) as idle,
    ):
        try:
            assert idle.stdout
            idle.stdout.readline()
            servers = [
                PeerServer(name, "", "", processes=(psutil.Process(process.pid),))
                for name, process in (("busy", busy), ("idle", idle))
            ]
            monkeypatch.setattr(time, "sleep", wait_for_cpu)
            (note,) = busy_while_idle(servers, 1.0)
        finally:
            busy.kill()
            idle.kill()
    assert note.startswith("busy spends ")


def test_the_first_round_is_a_warm_up_and_tritonic_is_the_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurements: list[tuple[str, int]] = []

    def measure(server: PeerServer, streams: int, seed: str) -> dict[str, float]:
        measurements.append((server.name, streams))
        rate = 100.0 if len(measurements) <= 2 * len(peers.STREAMS) else 50.0
        return {"tokens/s": rate} | dict.fromkeys(("first p50", "first p99", "between p50", "between p99"), 0.1)

    async def no_load(*_: object) -> list[Any]:
        return []

    monkeypatch.setattr(peers, "PEERS", {})
    monkeypatch.setattr(peers, "measure", measure)
    monkeypatch.setattr(peers, "run_load", no_load)
    monkeypatch.setattr(peers, "busy_while_idle", lambda servers: [])
    options = PeerOptions(tmp_path, "m", None, tmp_path, tmp_path, max(peers.STREAMS))
    running = [RunningPeer("other", "http://a", "m"), RunningPeer("Tritonic", "http://b", "m")]
    (result,) = peers.run(options, 2, running)
    assert len(measurements) == 3 * 2 * len(peers.STREAMS)
    assert [len(rounds) for rounds in result.details["rounds"].values()] == [2] * len(peers.STREAMS)
    assert {row[2] for row in result.rows} == {50.0}, "the first round is not counted"
    assert result.rows[0][1] == "Tritonic"


def test_the_name_of_tritonic_has_the_precision_of_the_built_model(tmp_path: Path) -> None:
    assert peer_servers._precision(tmp_path) == "as it was built"
    (tmp_path / "BUILD.json").write_text(json.dumps({"recipe": {"precision": "int8"}}))
    assert peer_servers._precision(tmp_path) == "int8"


def test_ratios_are_tritonic_to_each_peer() -> None:
    def stats(rate: float) -> dict[str, float]:
        return {"tokens/s": rate} | dict.fromkeys(("first p50", "first p99", "between p50", "between p99"), 0.1)

    rounds = [
        {"Tritonic": stats(ours) | {"cpu": 0.005, "megabytes": 900.0}, "other": stats(100.0)} for ours in (150.0, 250.0)
    ]
    result = table({16: rounds}, ["Tritonic", "other"])
    assert result.rows[0] == (16, "Tritonic", 200.0, 100.0, 100.0, 100.0, 100.0, 5.0, 900.0, None, None)
    assert result.rows[1] == (16, "other", 100.0, 100.0, 100.0, 100.0, 100.0, None, None, 2.0, [1.5, 2.5])
    assert [(threshold.value, threshold.target) for threshold in result.thresholds] == [(2.0, 1.0)]
