import asyncio
import itertools
import json
import socket
import subprocess
import sys
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
    ("text", "wanted"),
    [
        ("vLLM=http://host:8000", RunningPeer("vLLM", "http://host:8000", "")),
        ("vLLM=http://host:8000/v1/", RunningPeer("vLLM", "http://host:8000", "")),
        ("my server=org/model@https://host/api", RunningPeer("my server", "https://host/api", "org/model")),
        ("a=b@c@http://host", RunningPeer("a", "http://host", "b@c")),
    ],
)
def test_a_peer_is_a_name_and_a_url_and_maybe_a_model(text: str, wanted: RunningPeer) -> None:
    assert parse_peer(text) == wanted


@pytest.mark.parametrize("text", ["", "http://host", "name=host:8000", "=http://host", "name=model@host"])
def test_what_is_no_peer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=URL"):
        parse_peer(text)


def test_prompts_do_not_come_twice_and_depend_on_the_seed() -> None:
    one, same, other = (list(itertools.islice(prompts(seed), 200)) for seed in ("a", "a", "b"))
    assert one == same
    assert len(set(one) | set(other)) == 400
    assert all(len(text.split()) == peers.PROMPT_WORDS for text in one)


class Chats:
    """A server that answers each chat with as many words as it is asked for, two in a chunk."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []
        self.open = self.most = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.Response(status=self.status, text="full")
        self.asked.append(asked := await request.json())
        self.open += 1
        self.most = max(self.most, self.open)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in self._chunks(asked["max_tokens"]):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        self.open -= 1
        return response

    async def _chunks(self, tokens: int) -> AsyncIterator[dict[str, Any]]:
        for _ in range(tokens // 2):
            await asyncio.sleep(0.001)
            yield {"choices": [{"delta": {"content": " word word"}, "finish_reason": None}]}
        yield {"choices": [{"delta": {}, "finish_reason": "length"}]}
        yield {"choices": [], "usage": {"completion_tokens": tokens}}


async def loaded(chats: Chats, streams: int, seconds: float) -> list[Any]:
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chats.answer)])
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


def test_so_many_streams_are_open_and_all_answers_are_waited_for() -> None:
    chats = Chats()
    timings = asyncio.run(loaded(chats, 4, 0.5))
    assert chats.most == 4
    assert len(timings) == len(chats.asked) >= 4
    assert {timing.tokens for timing in timings} == {64}
    assert {len(timing.arrivals) for timing in timings} == {32}
    body = chats.asked[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["ignore_eos"]) == ("named", 64, 0, True)
    assert len({asked["messages"][0]["content"] for asked in chats.asked}) == len(chats.asked)


def test_an_error_ends_the_measurement() -> None:
    with pytest.raises(RuntimeError, match="other answered 429 full"):
        asyncio.run(loaded(Chats(status=429), 2, 0.5))


def test_a_server_that_does_not_rest_is_named() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy,
        subprocess.Popen(
            [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE
        ) as resting,
    ):
        try:
            assert resting.stdout
            resting.stdout.readline()
            both = [
                PeerServer(name, "", "", processes=(psutil.Process(process.pid),))
                for name, process in (("busy", busy), ("resting", resting))
            ]
            (note,) = busy_while_idle(both, 1.0)
        finally:
            busy.kill()
            resting.kill()
    assert note.startswith("busy spends ")


def test_a_round_before_the_others_warms_up_and_ours_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def measured(to: PeerServer, streams: int, seed: str) -> dict[str, float]:
        asked.append((to.name, streams))
        rate = 100.0 if len(asked) <= 2 * len(peers.STREAMS) else 50.0
        return {"tokens/s": rate} | dict.fromkeys(("first p50", "first p99", "between p50", "between p99"), 0.1)

    async def warmed(*_: object) -> list[Any]:
        return []

    monkeypatch.setattr(peers, "PEERS", {})
    monkeypatch.setattr(peers, "measure", measured)
    monkeypatch.setattr(peers, "run_load", warmed)
    monkeypatch.setattr(peers, "busy_while_idle", lambda servers: [])
    setting = PeerOptions(tmp_path, "m", None, tmp_path, tmp_path, max(peers.STREAMS))
    (made,) = peers.run(setting, 2, [RunningPeer("other", "http://a", "m"), RunningPeer("Tritonic", "http://b", "m")])
    assert len(asked) == 3 * 2 * len(peers.STREAMS)
    assert [len(each) for each in made.details["rounds"].values()] == [2] * len(peers.STREAMS)
    assert {row[2] for row in made.rows} == {50.0}, "nothing of the first round is counted"
    assert made.rows[0][1] == "Tritonic"


def test_ours_is_named_with_what_its_weights_were_made_into(tmp_path: Path) -> None:
    assert peer_servers._precision(tmp_path) == "as it was built"
    (tmp_path / "BUILD.json").write_text(json.dumps({"recipe": {"precision": "int8"}}))
    assert peer_servers._precision(tmp_path) == "int8"


def test_ratios_are_ours_to_the_others() -> None:
    def found(rate: float) -> dict[str, float]:
        return {"tokens/s": rate} | dict.fromkeys(("first p50", "first p99", "between p50", "between p99"), 0.1)

    rounds = [
        {"Tritonic": found(ours) | {"cpu": 0.005, "megabytes": 900.0}, "other": found(100.0)} for ours in (150.0, 250.0)
    ]
    made = table({16: rounds}, ["Tritonic", "other"])
    assert made.rows[0] == (16, "Tritonic", 200.0, 100.0, 100.0, 100.0, 100.0, 5.0, 900.0, None, None)
    assert made.rows[1] == (16, "other", 100.0, 100.0, 100.0, 100.0, 100.0, None, None, 2.0, [1.5, 2.5])
    assert [(bar.found, bar.wanted) for bar in made.thresholds] == [(2.0, 1.0)]
