import asyncio
import gc

import pytest
import uvloop

from tests.unit.gateway.rpc.h2_peer import ConnectedPair

gc.freeze()  # what was imported is not looked at again after each test


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
async def check_nothing_left(request):
    """No task, timer or failure may be left behind. Tasks of grpcio end when its thread has heard of the end."""
    loop, exceptions = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: exceptions.append(context))
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    if "GrpcTransport" in request.node.name or "grpc_servers" in request.node.nodeid:
        async with asyncio.timeout(30):
            while asyncio.all_tasks() - before - {asyncio.current_task()}:
                await asyncio.sleep(0.01)
    gc.collect()
    assert not exceptions
    assert not asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()]


@pytest.fixture
async def make_pair():
    """A client and its peer, whose rules the client must not break."""
    pairs = []

    def make(**options):
        pairs.append(ConnectedPair(**options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.connection.close()
        await pair.settle()
        assert pair.peer.wrong == []
