"""Calls that are given up, reset, sent away and lost."""

import asyncio

import pytest

from gateway.triton.rpc.frames import MAX_WINDOW_BYTES
from gateway.triton.rpc.status import RpcError, Status
from tests.unit.gateway.rpc.h2_peer import ConnectedPair, grpc_message, read_all


async def failure_of(call) -> tuple[Status, str]:
    with pytest.raises(RpcError) as failure:
        await read_all(call)
    return failure.value.status, failure.value.message


async def test_a_cancelled_call_is_reset_once(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.send_messages(1, b"one")
    for _ in range(3):
        call.cancel()
    assert pair.peer.resets == [(1, 8)]
    assert not call.has_message
    assert (await failure_of(call))[0] is Status.CANCELLED


async def test_a_finished_call_is_not_reset(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.answer(1, b"one")
    call.cancel()
    assert pair.peer.resets == []
    assert await call.read() is None


async def test_a_reader_that_is_cancelled_can_read_on(make_pair):
    pair = make_pair()
    call = await pair.call()
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    pair.peer.answer(1, b"one")
    assert await read_all(call) == [b"one"]


async def test_cancelling_a_call_wakes_its_reader(make_pair):
    pair = make_pair()
    call = await pair.call()
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(RpcError):
        await reading


@pytest.mark.parametrize(
    "code, status", [(0, "INTERNAL"), (2, "INTERNAL"), (7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED"),
                     (12, "PERMISSION_DENIED"), (99, "INTERNAL")],
)  # fmt: skip
async def test_resets(make_pair, code, status):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.send_messages(1, b"one")
    pair.peer.h2.reset_stream(1, code)
    pair.peer.flush()
    assert await call.read() == b"one"
    assert await failure_of(call) == (Status[status], f"The server reset the call (HTTP/2 error {code}).")
    assert pair.peer.resets == []


async def test_a_silent_server_times_out(make_pair):
    """Only waiting counts, and a call that was silent once can be again."""
    pair = make_pair()
    call = await pair.call(idle=0.02)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await call.read()
    pair.peer.open(1)
    pair.peer.send_messages(1, b"one")
    clock = call._idle_timer
    call._check_idle()  # the clock strikes when a message is here and the reader is not back yet
    clock.cancel()
    assert await call.read() == b"one"
    with pytest.raises(TimeoutError):
        await call.read()
    call.cancel()


async def test_the_idle_timeout_does_not_end_a_call_without_a_reader(make_pair):
    pair = make_pair()
    call = await pair.call(idle=0.01)
    first = call._idle_timer
    struck = asyncio.Event()
    asyncio.get_running_loop().call_at(first.when() + 0.01, struck.set)
    await struck.wait()
    assert not call.done and call._idle_timer is not first
    pair.peer.answer(1, b"one")
    assert await read_all(call) == [b"one"]


def send_goaway(pair: ConnectedPair, last: int) -> None:
    pair.peer.raw(b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + bytes(4))


async def test_a_graceful_goaway_lets_accepted_calls_finish(make_pair):
    """As gRPC's servers do: no number first, a ping, and then the last call that it has seen."""
    pair = make_pair()
    begun, late = await pair.call(), await pair.call()
    pair.peer.open(1)
    send_goaway(pair, MAX_WINDOW_BYTES)
    pair.peer.h2.ping(b"goodbye!")
    pair.peer.flush()
    assert pair.peer.pings == [b"goodbye!"]
    assert not pair.connection.accepts_calls and not pair.connection.closed
    assert await pair.connection.call(b"", b"", 1) is None
    send_goaway(pair, 1)
    assert await failure_of(late) == (Status.UNAVAILABLE, "The server is going away.")
    assert pair.peer.resets == []  # it does not know of that one
    pair.peer.send_messages(1, b"one")
    assert not pair.connection.closed
    pair.peer.end(1)
    assert pair.connection.closed
    assert await read_all(begun) == [b"one"]


async def test_a_goaway_releases_calls_that_wait_for_a_stream(make_pair):
    pair = make_pair(settings={3: 1})
    first = await pair.call()
    waiting = asyncio.create_task(pair.connection.call(b"", b"", 60))
    await pair.settle()
    send_goaway(pair, 1)
    assert await waiting is None
    pair.peer.answer(1)
    assert await read_all(first) == []
    assert pair.connection.closed


async def test_a_goaway_without_calls_closes_the_connection(make_pair):
    pair = make_pair()
    send_goaway(pair, 0)
    assert pair.connection.closed


async def test_a_goaway_in_the_middle_of_a_request(make_pair):
    pair = make_pair(takes=False)
    asking = pair.task(b"x" * 100_000)
    await pair.settle()
    send_goaway(pair, 1)
    pair.peer.h2.increment_flow_control_window(50_000)
    pair.peer.h2.increment_flow_control_window(50_000, 1)
    pair.peer.flush()
    assert len(await pair.peer.wait_for_request(1)) == 100_000
    pair.peer.answer(1, b"done")
    assert await read_all(await asking) == [b"done"]
    assert pair.connection.closed


@pytest.mark.parametrize("state", ["asked", "answering", "in a message", "in a frame", "in the request", "in line"])
async def test_a_lost_connection_fails_its_calls(make_pair, state):
    pair = make_pair(takes=False, settings={3: 1})
    if state == "in the request":
        asking = pair.task(b"x" * 100_000)
        await pair.settle()
        pair.connection.connection_lost(ConnectionResetError())
        call = await asking
    else:
        call = await pair.call()
        if state in ("answering", "in a message", "in a frame"):
            pair.peer.open(1)
        if state == "in a message":
            pair.peer.h2.send_data(1, grpc_message(b"question")[:8])
            pair.peer.flush()
        if state == "in a frame":
            pair.peer.raw(b"\0\0\x20\0\0\0\0\0\1\0\0")
        waiting = pair.connection.call(b"", b"", 60) if state == "in line" else None
        waiting = waiting and asyncio.create_task(waiting)
        await pair.settle()
        pair.connection.connection_lost(None)
        if waiting:
            assert await waiting is None
    assert await failure_of(call) == (Status.UNAVAILABLE, "The connection to the server is lost.")
    assert await pair.connection.call(b"", b"", 60) is None
    assert pair.connection.closed


async def test_closing_the_connection_cancels_its_calls(make_pair):
    pair = make_pair()
    calls = [await pair.call() for _ in range(3)]
    reading = asyncio.create_task(calls[0].read())
    await asyncio.sleep(0)
    pair.connection.close()
    with pytest.raises(RpcError) as failure:
        await reading
    assert failure.value.status is Status.CANCELLED
    for call in calls:
        assert await failure_of(call) == (Status.CANCELLED, "The connection was closed.")
    assert not pair.wire.aborted


async def test_closing_does_not_wait_for_a_server_that_does_not_read(make_pair):
    pair = make_pair()
    pair.connection.pause_writing()
    pair.connection.close()
    assert pair.wire.aborted


async def test_stream_ids_run_out(make_pair):
    pair = make_pair()
    first = await pair.call()
    pair.connection._next_stream_id = 2**30 - 3
    waiting = await pair.call()
    assert pair.connection.accepts_calls
    last = await pair.call()
    assert last.stream == 2**30 - 1 and not pair.connection.accepts_calls
    assert await pair.connection.call(b"", b"", 60) is None
    for call in (first, waiting, last):
        assert not pair.connection.closed
        pair.peer.answer(call.stream, b"one")
        assert await read_all(call) == [b"one"]
    assert pair.connection.closed
