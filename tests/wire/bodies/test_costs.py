"""No body holds the loop for long or keeps much memory, whatever it is made of.

Times are CPU times of a gateway in a process of its own: how busy the machine is does not matter. `starved` counts what
threads do while the loop could not beat, `held` what the loop's own thread did.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.triton import FakeTriton
from tests.wire.bodies.builders import CHAT, GENERATIONS, MB, chat_body
from tests.wire.bodies.cases import ALLOWED, FORMS, REFUSED
from tests.wire.bodies.measured_gateway import Cost, MeasuredGateway, run_measured_gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_CPU_SECONDS = 0.1
"""Seconds of CPU."""
MAX_BYTES = 256 * MB


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def measured(triton: FakeTriton) -> AsyncIterator[MeasuredGateway]:
    async with run_measured_gateway(triton.url) as gateway:
        await gateway.cost(CHAT, chat_body('"n":1'))
        yield gateway


async def least_cost(measured: MeasuredGateway, *request: Any) -> Cost:
    """Return the cost of a request. On a busy machine, threads run while the loop waits for a CPU: try 3 times."""
    for _ in range(3):
        cost = await measured.cost(*request)
        if cost.starved < MAX_CPU_SECONDS:
            break
    return cost


def check_cost(cost: Cost) -> None:
    assert cost.held < MAX_CPU_SECONDS, cost
    assert cost.starved < MAX_CPU_SECONDS, cost
    assert cost.grown < MAX_BYTES, cost
    assert len(cost.answer) < 20_000 or cost.status == 200


@pytest.mark.parametrize("name", ALLOWED)
async def test_bodies_within_the_limits_are_cheap(measured: MeasuredGateway, name: str) -> None:
    path, body = ALLOWED[name]
    cost = await least_cost(measured, path, body())
    assert cost.status in (200, 400, 404), cost
    check_cost(cost)


@pytest.mark.parametrize("name", REFUSED)
async def test_bodies_beyond_a_limit_are_refused_cheaply(measured: MeasuredGateway, name: str) -> None:
    path, body, message = REFUSED[name]
    cost = await least_cost(measured, path, body())
    assert cost.status in (400, 413), cost
    assert re.search(message, cost.answer), cost
    check_cost(cost)


@pytest.mark.parametrize("name", FORMS)
async def test_forms(measured: MeasuredGateway, name: str) -> None:
    content_type, body = FORMS[name]
    cost = await least_cost(measured, GENERATIONS, body(), {"content-type": content_type})
    assert cost.status == 400, cost
    check_cost(cost)
