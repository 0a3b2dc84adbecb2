"""Many concurrent clients: no response is lost or mixed up, and no state remains."""

import asyncio
import random

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import CHAT_STREAM, STREAM_ROUTES, TEXT_ROUTES, TEXT_STREAM, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def in_flight(gateway: RunningGateway) -> float:
    return sum(value for name, value in (await gateway.metrics()).items() if name.startswith("tritonic_in_flight"))


async def wait_until_idle(gateway: RunningGateway, triton: FakeTriton, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while triton.active or await in_flight(gateway):
            await asyncio.sleep(0.02)


async def test_two_hundred_concurrent_requests(gateway: RunningGateway, triton: FakeTriton) -> None:
    async def ask(number: int) -> None:
        route = TEXT_ROUTES[number % len(TEXT_ROUTES)]
        text = f"I am number {number} of the crowd. " * 3
        response = await gateway.http.post(route.path, json=route.body("echo", text))
        assert response.status_code == 200
        expected = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" if "chat" in route.path else text
        assert route.text(response) == expected

    await asyncio.gather(*(ask(number) for number in range(200)))
    await wait_until_idle(gateway, triton)


async def test_fifty_random_disconnects(gateway: RunningGateway, triton: FakeTriton) -> None:
    rng = random.Random(7)
    before = len(triton.calls)
    cancellations = {name: value for name, value in (await gateway.metrics()).items() if "cancellations_total" in name}

    async def leave(number: int, after: float) -> None:
        route = TEXT_ROUTES[number % len(TEXT_ROUTES)]
        model = ("endless", "silent", "silent-later")[number % 3]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(after):
                await gateway.http.post(route.path, json=route.body(model))

    async def stay(number: int) -> str:
        route = STREAM_ROUTES[number % 2]
        return route.text(await gateway.http.post(route.path, json=route.body("steady")))

    leaving = [leave(number, rng.uniform(0.02, 0.5)) for number in range(50)]
    staying = [stay(number) for number in range(10)]
    results = await asyncio.gather(*leaving, *staying)
    assert results[50:] == ["tick tick tick tick tock"] * 10
    await wait_until_idle(gateway, triton)
    abandoned = [call for call in triton.calls[before:] if call.model != "steady"]
    assert all(call.cancelled_at is not None for call in abandoned)
    now = {name: value for name, value in (await gateway.metrics()).items() if "cancellations_total" in name}
    # Some left before their request had come as far as the model.
    assert len(abandoned) <= sum(now.values()) - sum(cancellations.values()) <= 50
    assert (await chat(gateway)).status_code == 200


async def test_a_client_that_does_not_read_does_not_block_others(gateway: RunningGateway, triton: FakeTriton) -> None:
    async with gateway.http.stream("POST", TEXT_STREAM.path, json=TEXT_STREAM.body("endless")):
        answers = await asyncio.gather(*(chat(gateway) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
    await wait_until_idle(gateway, triton)


async def test_a_kept_connection_serves_many(gateway: RunningGateway) -> None:
    """After a stream, its connection can be reused."""
    ports = set()
    for _ in range(20):
        response = await gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body("hello"))
        ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(ports) == 1
