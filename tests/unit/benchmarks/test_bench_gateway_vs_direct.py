"""Measurements through the gateway and with perf_analyzer: concurrency, timings, turns, and repeated measurements."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from benchmarks import gateway_vs_direct, perf_analyzer, triton_direct
from benchmarks.profiles import Request
from benchmarks.timings import ResponseTiming
from benchmarks.triton_direct import sweep


class ChatServer:
    """Answers chats, and records the highest number of open requests."""

    def __init__(self) -> None:
        self.num_open = self.max_open = 0
        self.end = b"data: [DONE]\n\n"
        self.status = 200

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        body = await request.json()
        await asyncio.sleep(0.01)
        self.num_open -= 1
        if not body.get("stream"):
            return web.json_response({}, status=self.status)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices": []}\n\n')
        await asyncio.sleep(0.01)
        await response.write(self.end)
        return response


@pytest_asyncio.fixture
async def chat_server() -> AsyncIterator[tuple[ChatServer, str]]:
    server = ChatServer()
    app = web.Application()
    app.router.add_post("/v1/chat", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/chat"
    await runner.cleanup()


def load(*bodies: dict[str, Any], concurrency: int = 3) -> gateway_vs_direct.PairedLoad:
    return gateway_vs_direct.PairedLoad(
        "chats", "requests/s", "m", concurrency, None, "/v1/chat", [], bodies, 1.0, tokens=7
    )


async def test_the_load_keeps_its_number_of_requests_in_flight_and_times_each(
    chat_server: tuple[ChatServer, str],
) -> None:
    server, url = chat_server
    timings = await gateway_vs_direct._through_gateway(url, load({"stream": True}, {"stream": False}), 0.3)
    assert server.max_open == 3
    assert len(timings) >= 6
    streamed = [timing for timing in timings if len(timing.arrivals) == 2]
    assert streamed and len(streamed) < len(timings)
    assert all(timing.tokens == 7 and timing.began < timing.arrivals[0] for timing in timings)


async def test_an_error_status_or_a_broken_stream_ends_the_measurement(chat_server: tuple[ChatServer, str]) -> None:
    server, url = chat_server
    server.status = 503
    with pytest.raises(RuntimeError, match="503"):
        await gateway_vs_direct._through_gateway(url, load({}), 0.3)
    server.end = b'data: {"error": {}}\n\n'
    with pytest.raises(RuntimeError, match="A stream ended with"):
        await gateway_vs_direct._through_gateway(url, load({"stream": True}), 0.3)


def test_the_paths_take_turns_and_the_warm_up_round_is_not_returned() -> None:
    order: list[str] = []

    def path(name: str, rate: float) -> Callable[[float], list[ResponseTiming]]:
        def send_load(seconds: float) -> list[ResponseTiming]:
            order.append(name)
            return [
                ResponseTiming(number / rate, (gateway_vs_direct.WARM_UP + (number + 0.5) / rate,), 1)
                for number in range(int(20 * rate))
            ]

        return send_load

    rounds = gateway_vs_direct.measure({"direct": path("direct", 2.0), "gateway": path("gateway", 1.0)}, 10.0, 2)
    assert order == ["direct", "gateway", "gateway", "direct", "direct", "gateway"]
    assert [(stats["direct"]["tokens/s"], stats["gateway"]["tokens/s"]) for stats in rounds] == [(2.0, 1.0)] * 2


def test_a_sweep_repeats_no_request_before_all_were_sent() -> None:
    all_requests: tuple[Request, ...] = tuple({"number": number} for number in range(60))
    sent: list[int] = []

    def send_load(requests: Sequence[Request] | None, concurrency: int, seconds: float) -> list[ResponseTiming]:
        assert requests is not None and len(requests) == 60
        sent.extend(request["number"] for request in requests[: 10 + concurrency])
        return [ResponseTiming(0.0, (triton_direct.WARM_UP + number / 10,), 1) for number in range(10)]

    load = triton_direct.SweepLoad("t", "requests/s", "m", (), all_requests, seconds=4.0)
    results = sweep(send_load, load, (1, 2, 4))
    assert [concurrency for concurrency, _ in results] == [1, 2, 4]
    assert len(sent) == len(set(sent)) == 37


def test_the_measurement_is_repeated_longer_on_a_slow_machine() -> None:
    durations = []

    def send_load(seconds: float) -> list[ResponseTiming]:
        durations.append(seconds)
        if seconds < 10:
            raise perf_analyzer.TooSlow("none")
        return [ResponseTiming(0.0, (2.0 + number,), 1) for number in range(int(seconds - 2.0))]

    timings, stats = triton_direct.measure_until_enough(send_load, 2.0, 3.0)
    assert durations == [5.0, 8.0, 14.0]
    assert (len(timings), stats["tokens/s"]) == (12, 1.0)
    with pytest.raises(perf_analyzer.TooSlow):
        triton_direct.measure_until_enough(send_load, 0.0, 1.0)


def test_a_response_longer_than_the_tail_repeats_the_measurement_with_both_doubled() -> None:
    durations = []

    def send_load(seconds: float) -> list[ResponseTiming]:
        durations.append(seconds)
        return [ResponseTiming(float(number), (number + 1.0, number + 7.0), 2) for number in range(int(seconds) - 7)]

    timings, stats = triton_direct.measure_until_enough(send_load, 8.0, 9.0, 5.0)
    assert durations == [22.0, 36.0]
    assert (len(timings), stats["tokens/s"]) == (29, 2.0), (
        "tokens of the 18 seconds count even if their request ends later"
    )
    with pytest.raises(perf_analyzer.TooSlow, match=r"7\.0 s, and 4\.0 s were waited"):
        triton_direct.measure_until_enough(send_load, 2.0, 9.0, 1.0)


def test_a_missing_libb64_is_named_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert perf_analyzer._loads("libc.so.6")
    assert not perf_analyzer._loads("libno.such")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"needs libb64\.so\.0d: install it"):
        perf_analyzer._unpack_libb64(tmp_path)


def test_chats_over_grpc_are_rendered_by_the_models_own_template(tmp_path: Path) -> None:
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<answer>"
    parameter = f'parameters {{ key: "chat_template" value {{ string_value: {json.dumps(template)} }} }}'
    (tmp_path / "config.pbtxt").write_text(f'name: "m"\n{parameter}\n')
    assert perf_analyzer.render_prompts(tmp_path, ["one", "two"]) == ["<user>one<answer>", "<user>two<answer>"]
