"""Sent requests: large ones, small windows, many callers."""

import asyncio

import pytest
from h2.settings import SettingCodes

from gateway.triton.rpc import frames
from gateway.triton.rpc.status import RpcError, Status
from tests.unit.gateway.rpc.h2_peer import ConnectedPair, grpc_message, read_all

LARGE = bytes(range(256)) * 1_000
WINDOW, MOST = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_CONCURRENT_STREAMS


def change_settings(pair: ConnectedPair, settings: dict) -> None:
    pair.peer.h2.update_settings(settings)
    pair.peer.flush()


@pytest.mark.parametrize("window", [1_000, 16_384, 65_535, 300_000])
async def test_a_large_request_respects_the_window(make_pair, window):
    pair = make_pair(settings={WINDOW: window})
    call = await pair.call(LARGE)
    assert await pair.peer.wait_for_request(1) == LARGE
    pair.peer.answer(1, b"fine")
    assert await read_all(call) == [b"fine"]


@pytest.mark.parametrize("size", range(10))
async def test_window_updates_at_the_end_of_a_request(make_pair, size):
    """The end of a request is sent once, also when the window ends just before, at or after it."""
    pair = make_pair(settings={WINDOW: 8}, takes=False)
    asking = pair.task(bytes(size))
    await pair.settle()
    assert asking.done() == (size + 5 <= 8)
    pair.peer.h2.increment_flow_control_window(100, 1)
    await pair.settle()
    assert await pair.peer.wait_for_request(1) == bytes(size)
    pair.peer.answer(1)
    assert await read_all(await asking) == []


async def test_a_request_waits_for_a_window(make_pair):
    pair = make_pair(settings={WINDOW: 0}, takes=False)
    asking = pair.task()
    await pair.settle()
    assert 1 in pair.peer.requests and not pair.peer.requests[1]  # the server knows of it
    change_settings(pair, {WINDOW: 100})
    assert await pair.peer.wait_for_request(1) == b"question"
    pair.peer.answer(1)
    assert await read_all(await asking) == []


async def test_a_negative_window_stops_the_request(make_pair):
    pair = make_pair(settings={WINDOW: 1_000}, takes=False)
    asking = pair.task(LARGE[:3_000])
    await pair.settle()
    assert len(pair.peer.requests[1]) == 1_000
    change_settings(pair, {WINDOW: 100})
    await pair.settle()
    pair.peer.h2.increment_flow_control_window(900, 1)  # -900 + 900
    await pair.settle()
    assert len(pair.peer.requests[1]) == 1_000
    pair.peer.h2.increment_flow_control_window(1, 1)
    await pair.settle()
    assert len(pair.peer.requests[1]) == 1_001
    change_settings(pair, {WINDOW: 50_000})
    assert await pair.peer.wait_for_request(1) == LARGE[:3_000]
    pair.peer.answer(1)
    await read_all(await asking)


async def test_larger_frames_are_not_used(make_pair):
    pair = make_pair(settings={SettingCodes.MAX_FRAME_SIZE: 2**24 - 1, WINDOW: 2**20})
    call = await pair.call(LARGE)
    assert await pair.peer.wait_for_request(1) == LARGE
    pair.peer.answer(1)
    await read_all(call)


async def test_a_large_request_does_not_block_others(make_pair):
    """The connection's window is used up by one; the next one's first frame comes after one frame of that."""
    pair = make_pair(settings={WINDOW: 2**30}, takes=False)
    large = pair.task(b"x" * 5_000_000)
    await pair.settle()
    small = [pair.task(b"small") for _ in range(3)]
    await pair.settle()
    assert pair.peer.order.count(1) == 4 and not any(task.done() for task in small)
    for _ in range(4):
        pair.peer.h2.increment_flow_control_window(16_384)
        await pair.settle()
    assert all(task.done() for task in small)
    for task in [large, *small]:
        task.cancel()
    await asyncio.gather(large, *small, return_exceptions=True)
    for task in small:
        (await task).cancel()


async def test_nothing_is_written_while_the_server_does_not_read(make_pair):
    pair = make_pair(settings={WINDOW: 2**30})
    pair.peer.h2.increment_flow_control_window(2**30)
    pair.peer.flush()
    large = pair.task(b"x" * 1_000_000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pair.connection.pause_writing()
    before = len(pair.wire.written)
    small = pair.task()
    await pair.settle()
    assert len(pair.wire.written) == before
    pair.connection.resume_writing()
    assert len(await pair.peer.wait_for_request(1)) == 1_000_000
    assert await pair.peer.wait_for_request(3) == b"question"
    for asking in (large, small):
        (await asking).cancel()


async def test_a_response_before_the_end_of_the_request(make_pair):
    pair = make_pair(takes=False)
    asking = pair.task(LARGE)
    await pair.settle()
    pair.peer.answer(1, b"enough")
    assert await read_all(await asking) == [b"enough"]
    assert pair.peer.resets == [(1, 0)]
    assert not pair.connection._flow.has_waiters and not pair.connection._calls


async def test_an_error_before_the_end_of_the_request(make_pair):
    pair = make_pair(takes=False)
    asking = pair.task(LARGE)
    await pair.settle()
    pair.peer.h2.reset_stream(1, 7)
    pair.peer.flush()
    with pytest.raises(RpcError) as failure:
        await (await asking).read()
    assert failure.value.status is Status.UNAVAILABLE
    assert pair.peer.resets == []  # a reset is never answered by one


async def test_a_request_that_is_cancelled_half_way(make_pair):
    pair = make_pair(takes=False)
    asking = pair.task(LARGE)
    await pair.settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert pair.peer.resets == [(1, 8)]
    assert not pair.connection._calls and not pair.connection._flow.has_waiters


async def test_an_upload_to_a_server_that_stops_reading_times_out(make_pair):
    pair = make_pair(takes=False)
    with pytest.raises(TimeoutError):
        await pair.connection.call(b"\x20", LARGE, 0.01)
    assert pair.peer.wrong  # our block was none: only the reset matters here
    pair.peer.wrong.clear()
    assert not pair.connection._calls


async def test_calls_beyond_the_limit_of_streams_wait(make_pair):
    pair = make_pair(settings={MOST: 2})
    asking = [pair.task(b"%d" % number) for number in range(7)]
    await pair.settle()
    assert list(pair.peer.requests) == [1, 3]
    asking[4].cancel()  # while it waits
    for number, stream in enumerate(range(1, 13, 2)):
        await pair.peer.until(lambda peer, stream=stream: stream in peer.ended)
        pair.peer.answer(stream, b"%d" % number)
        await pair.settle()
    answers = [await read_all(await task) for n, task in enumerate(asking) if n != 4]
    assert answers == [[b"%d" % number] for number in range(6)]
    assert [bytes(body[5:]) for body in pair.peer.requests.values()] == [b"0", b"1", b"2", b"3", b"5", b"6"]


async def test_a_cancelled_call_gives_its_stream_to_the_next(make_pair):
    pair = make_pair(settings={MOST: 1})
    first, second, third = (pair.task() for _ in range(3))
    await pair.settle()
    pair.peer.answer(1)  # wakes the second
    second.cancel()
    await pair.settle()
    assert list(pair.peer.requests) == [1, 3]
    pair.peer.answer(3)
    for task in (first, third):
        assert await read_all(await task) == []
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_waiting_calls_keep_their_order(make_pair):
    pair = make_pair(settings={MOST: 1})
    asking = [pair.task(b"%d" % number) for number in range(2)]
    await pair.settle()
    asking += [pair.task(b"%d" % number) for number in range(2, 5)]  # they run before the second does
    pair.peer.answer(1)
    for stream in (3, 5, 7, 9):
        await pair.settle()
        pair.peer.answer(stream)
    for task in asking:
        assert await read_all(await task) == []
    assert [bytes(body[5:]) for body in pair.peer.requests.values()] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_cancelled_call_frees_its_stream_for_later_calls(make_pair):
    pair = make_pair(settings={MOST: 1})
    first, second = pair.task(), pair.task()
    await pair.settle()
    pair.peer.answer(1)  # wakes the second
    second.cancel()
    await pair.settle()
    third = pair.task()
    await pair.settle()
    pair.peer.answer(3)
    for task in (first, third):
        assert await read_all(await task) == []
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_the_limit_of_streams_changes(make_pair):
    pair = make_pair(settings={MOST: 0})
    asking = [pair.task() for _ in range(3)]
    await pair.settle()
    assert not pair.peer.requests
    change_settings(pair, {MOST: 2})
    await pair.settle()
    assert list(pair.peer.requests) == [1, 3]
    change_settings(pair, {MOST: 100})
    await pair.settle()
    assert list(pair.peer.requests) == [1, 3, 5]
    for task in asking:
        (await task).cancel()


async def test_waiting_for_a_stream_times_out(make_pair):
    pair = make_pair(settings={MOST: 0})
    with pytest.raises(TimeoutError):
        await pair.call(idle=0.01)
    assert not pair.connection._flow.has_waiters


async def test_thousands_of_cancelled_calls_leave_the_connection_usable(make_pair):
    """Data of cancelled calls is returned to the connection's window."""
    pair = make_pair()
    payload = grpc_message(b"x" * 16_000)
    for _ in range(2_000):
        call = await pair.call()
        pair.peer.open(call.stream)
        pair.peer.h2.send_data(call.stream, payload)
        late = pair.peer.h2.data_to_send()
        call.cancel()
        pair.connection.data_received(late)
    assert len(pair.peer.resets) == 2_000
    assert pair.connection._receive_window == pair.peer.h2.outbound_flow_control_window
    assert pair.connection._receive_window > frames.MAX_WINDOW_BYTES - 2_001 * len(payload)
    pair.connection._receive_window = frames.MAX_WINDOW_BYTES // 2 + 1  # as after a gigabyte
    pair.peer.h2.outbound_flow_control_window = pair.connection._receive_window
    call = await pair.call()
    pair.peer.open(call.stream)
    pair.peer.send_messages(call.stream, b"more")
    assert pair.connection._receive_window == frames.MAX_WINDOW_BYTES == pair.peer.h2.outbound_flow_control_window
    call.cancel()
