"""The client that asks through the gateway, and the turns that it takes with perf_analyzer."""

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


class Service:
    """Answers chats, and remembers how many were open at once."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self.end = b"data: [DONE]\n\n"
        self.status = 200

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.most = max(self.most, self.open)
        body = await request.json()
        await asyncio.sleep(0.01)
        self.open -= 1
        if not body.get("stream"):
            return web.json_response({}, status=self.status)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices": []}\n\n')
        await asyncio.sleep(0.01)
        await response.write(self.end)
        return response


@pytest_asyncio.fixture
async def service() -> AsyncIterator[tuple[Service, str]]:
    answering = Service()
    app = web.Application()
    app.router.add_post("/v1/asked", answering.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield answering, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/asked"
    await runner.cleanup()


def load(*bodies: dict[str, Any], at_once: int = 3) -> gateway_vs_direct.PairedLoad:
    return gateway_vs_direct.PairedLoad(
        "asked", "requests/s", "m", at_once, None, "/v1/asked", [], bodies, 1.0, tokens=7
    )


async def test_so_many_requests_are_in_flight_and_each_is_timed(service: tuple[Service, str]) -> None:
    answering, url = service
    found = await gateway_vs_direct._through_gateway(url, load({"stream": True}, {"stream": False}), 0.3)
    assert answering.most == 3
    assert len(found) >= 6
    streamed = [timing for timing in found if len(timing.arrivals) == 2]
    assert streamed and len(streamed) < len(found)
    assert all(timing.tokens == 7 and timing.began < timing.arrivals[0] for timing in found)


async def test_an_answer_that_is_none_ends_the_measurement(service: tuple[Service, str]) -> None:
    answering, url = service
    answering.status = 503
    with pytest.raises(RuntimeError, match="503"):
        await gateway_vs_direct._through_gateway(url, load({}), 0.3)
    answering.end = b'data: {"error": {}}\n\n'
    with pytest.raises(RuntimeError, match="A stream ended with"):
        await gateway_vs_direct._through_gateway(url, load({"stream": True}), 0.3)


def test_the_ways_take_turns_and_the_first_round_is_not_counted() -> None:
    asked: list[str] = []

    def way(name: str, rate: float) -> Callable[[float], list[ResponseTiming]]:
        def ask(seconds: float) -> list[ResponseTiming]:
            asked.append(name)
            return [
                ResponseTiming(number / rate, (gateway_vs_direct.WARM_UP + (number + 0.5) / rate,), 1)
                for number in range(int(20 * rate))
            ]

        return ask

    found = gateway_vs_direct.measure({"direct": way("direct", 2.0), "gateway": way("gateway", 1.0)}, 10.0, 2)
    assert asked == ["direct", "gateway", "gateway", "direct", "direct", "gateway"]
    assert [(each["direct"]["tokens/s"], each["gateway"]["tokens/s"]) for each in found] == [(2.0, 1.0)] * 2


def test_no_request_of_a_sweep_comes_twice_while_there_are_others() -> None:
    requests: tuple[Request, ...] = tuple({"number": number} for number in range(60))
    asked: list[int] = []

    def ask(given: Sequence[Request] | None, at_once: int, seconds: float) -> list[ResponseTiming]:
        assert given is not None and len(given) == 60
        asked.extend(request["number"] for request in given[: 10 + at_once])
        return [ResponseTiming(0.0, (triton_direct.WARM_UP + number / 10,), 1) for number in range(10)]

    found = sweep(ask, triton_direct.SweepLoad("t", "requests/s", "m", (), requests, seconds=4.0), (1, 2, 4))
    assert [number for number, _ in found] == [1, 2, 4]
    assert len(asked) == len(set(asked)) == 37


def test_a_machine_that_is_too_slow_is_given_longer() -> None:
    given = []

    def ask(seconds: float) -> list[ResponseTiming]:
        given.append(seconds)
        if seconds < 10:
            raise perf_analyzer.TooSlow("none")
        return [ResponseTiming(0.0, (2.0 + number,), 1) for number in range(int(seconds - 2.0))]

    timings, found = triton_direct.measure_until_enough(ask, 2.0, 3.0)
    assert given == [5.0, 8.0, 14.0]
    assert (len(timings), found["tokens/s"]) == (12, 1.0)
    with pytest.raises(perf_analyzer.TooSlow):
        triton_direct.measure_until_enough(ask, 0.0, 1.0)


def test_an_answer_longer_than_the_tail_makes_both_longer() -> None:
    given = []

    def ask(seconds: float) -> list[ResponseTiming]:
        given.append(seconds)
        return [ResponseTiming(float(number), (number + 1.0, number + 7.0), 2) for number in range(int(seconds) - 7)]

    timings, found = triton_direct.measure_until_enough(ask, 8.0, 9.0, 5.0)
    assert given == [22.0, 36.0]
    assert (len(timings), found["tokens/s"]) == (29, 2.0), "of the tokens of 18 seconds also those that end later"
    with pytest.raises(perf_analyzer.TooSlow, match=r"7\.0 s, and 4\.0 s were waited"):
        triton_direct.measure_until_enough(ask, 2.0, 9.0, 1.0)


def test_a_library_that_the_system_has_not_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
