"""What goes out: large requests, small windows, many callers."""

import asyncio

import pytest
from h2.settings import SettingCodes

from gateway.triton.rpc import frames
from gateway.triton.rpc.status import RpcError, Status
from tests.unit.gateway.rpc.h2_peer import ConnectedPair, grpc_message, read_all

LARGE = bytes(range(256)) * 1_000
WINDOW, MOST = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_CONCURRENT_STREAMS


def change(here: ConnectedPair, settings: dict) -> None:
    here.peer.h2.update_settings(settings)
    here.peer.flush()


@pytest.mark.parametrize("window", [1_000, 16_384, 65_535, 300_000])
async def test_a_large_request_in_a_window(line, window):
    here = line(settings={WINDOW: window})
    call = await here.call(LARGE)
    assert await here.peer.wait_for_request(1) == LARGE
    here.peer.answer(1, b"fine")
    assert await read_all(call) == [b"fine"]


@pytest.mark.parametrize("size", range(10))
async def test_windows_at_the_end_of_a_request(line, size):
    """Where a window ends just before, at and after the end, the end is said once."""
    here = line(settings={WINDOW: 8}, takes=False)
    asking = here.task(bytes(size))
    await here.settle()
    assert asking.done() == (size + 5 <= 8)
    here.peer.h2.increment_flow_control_window(100, 1)
    await here.settle()
    assert await here.peer.wait_for_request(1) == bytes(size)
    here.peer.answer(1)
    assert await read_all(await asking) == []


async def test_no_window_at_first(line):
    here = line(settings={WINDOW: 0}, takes=False)
    asking = here.task()
    await here.settle()
    assert 1 in here.peer.requests and not here.peer.requests[1]  # the server knows of it
    change(here, {WINDOW: 100})
    assert await here.peer.wait_for_request(1) == b"question"
    here.peer.answer(1)
    assert await read_all(await asking) == []


async def test_a_window_that_becomes_negative(line):
    here = line(settings={WINDOW: 1_000}, takes=False)
    asking = here.task(LARGE[:3_000])
    await here.settle()
    assert len(here.peer.requests[1]) == 1_000
    change(here, {WINDOW: 100})
    await here.settle()
    here.peer.h2.increment_flow_control_window(900, 1)  # -900 + 900
    await here.settle()
    assert len(here.peer.requests[1]) == 1_000
    here.peer.h2.increment_flow_control_window(1, 1)
    await here.settle()
    assert len(here.peer.requests[1]) == 1_001
    change(here, {WINDOW: 50_000})
    assert await here.peer.wait_for_request(1) == LARGE[:3_000]
    here.peer.answer(1)
    await read_all(await asking)


async def test_a_larger_frame_is_allowed_and_not_needed(line):
    here = line(settings={SettingCodes.MAX_FRAME_SIZE: 2**24 - 1, WINDOW: 2**20})
    call = await here.call(LARGE)
    assert await here.peer.wait_for_request(1) == LARGE
    here.peer.answer(1)
    await read_all(call)


async def test_a_large_request_starves_nobody(line):
    """The connection's window is used up by one; the next one's first frame comes after one frame of that."""
    here = line(settings={WINDOW: 2**30}, takes=False)
    large = here.task(b"x" * 5_000_000)
    await here.settle()
    small = [here.task(b"small") for _ in range(3)]
    await here.settle()
    assert here.peer.order.count(1) == 4 and not any(task.done() for task in small)
    for _ in range(4):
        here.peer.h2.increment_flow_control_window(16_384)
        await here.settle()
    assert all(task.done() for task in small)
    for task in [large, *small]:
        task.cancel()
    await asyncio.gather(large, *small, return_exceptions=True)
    for task in small:
        (await task).cancel()


async def test_nothing_is_written_while_the_server_does_not_read(line):
    here = line(settings={WINDOW: 2**30})
    here.peer.h2.increment_flow_control_window(2**30)
    here.peer.flush()
    large = here.task(b"x" * 1_000_000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    here.connection.pause_writing()
    before = len(here.wire.written)
    small = here.task()
    await here.settle()
    assert len(here.wire.written) == before
    here.connection.resume_writing()
    assert len(await here.peer.wait_for_request(1)) == 1_000_000
    assert await here.peer.wait_for_request(3) == b"question"
    for asking in (large, small):
        (await asking).cancel()


async def test_an_answer_that_comes_before_the_whole_request(line):
    here = line(takes=False)
    asking = here.task(LARGE)
    await here.settle()
    here.peer.answer(1, b"enough")
    assert await read_all(await asking) == [b"enough"]
    assert here.peer.resets == [(1, 0)]
    assert not here.connection._flow.has_waiters and not here.connection._calls


async def test_a_refusal_before_the_whole_request(line):
    here = line(takes=False)
    asking = here.task(LARGE)
    await here.settle()
    here.peer.h2.reset_stream(1, 7)
    here.peer.flush()
    with pytest.raises(RpcError) as failure:
        await (await asking).read()
    assert failure.value.status is Status.UNAVAILABLE
    assert here.peer.resets == []  # a reset is never answered by one


async def test_a_request_that_is_given_up_half_way(line):
    here = line(takes=False)
    asking = here.task(LARGE)
    await here.settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert here.peer.resets == [(1, 8)]
    assert not here.connection._calls and not here.connection._flow.has_waiters


async def test_a_server_that_takes_no_more_of_a_request(line):
    here = line(takes=False)
    with pytest.raises(TimeoutError):
        await here.connection.call(b"\x20", LARGE, 0.01)
    assert here.peer.wrong  # our block was none: only the reset matters here
    here.peer.wrong.clear()
    assert not here.connection._calls


async def test_more_calls_than_the_server_takes_at_once(line):
    here = line(settings={MOST: 2})
    asking = [here.task(b"%d" % number) for number in range(7)]
    await here.settle()
    assert list(here.peer.requests) == [1, 3]
    asking[4].cancel()  # while it waits
    for number, stream in enumerate(range(1, 13, 2)):
        await here.peer.until(lambda peer, stream=stream: stream in peer.ended)
        here.peer.answer(stream, b"%d" % number)
        await here.settle()
    answers = [await read_all(await task) for n, task in enumerate(asking) if n != 4]
    assert answers == [[b"%d" % number] for number in range(6)]
    assert [bytes(body[5:]) for body in here.peer.requests.values()] == [b"0", b"1", b"2", b"3", b"5", b"6"]


async def test_who_is_let_in_and_cancelled_at_once_leaves_the_place_to_the_next(line):
    here = line(settings={MOST: 1})
    first, second, third = (here.task() for _ in range(3))
    await here.settle()
    here.peer.answer(1)  # wakes the second
    second.cancel()
    await here.settle()
    assert list(here.peer.requests) == [1, 3]
    here.peer.answer(3)
    for task in (first, third):
        assert await read_all(await task) == []
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_nobody_overtakes_who_is_let_in(line):
    here = line(settings={MOST: 1})
    asking = [here.task(b"%d" % number) for number in range(2)]
    await here.settle()
    asking += [here.task(b"%d" % number) for number in range(2, 5)]  # they run before the second does
    here.peer.answer(1)
    for stream in (3, 5, 7, 9):
        await here.settle()
        here.peer.answer(stream)
    for task in asking:
        assert await read_all(await task) == []
    assert [bytes(body[5:]) for body in here.peer.requests.values()] == [b"0", b"1", b"2", b"3", b"4"]


async def test_who_is_let_in_and_cancelled_when_nobody_waits_leaves_the_place_to_who_comes(line):
    here = line(settings={MOST: 1})
    first, second = here.task(), here.task()
    await here.settle()
    here.peer.answer(1)  # wakes the second
    second.cancel()
    await here.settle()
    third = here.task()
    await here.settle()
    here.peer.answer(3)
    for task in (first, third):
        assert await read_all(await task) == []
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_the_limit_of_calls_changes(line):
    here = line(settings={MOST: 0})
    asking = [here.task() for _ in range(3)]
    await here.settle()
    assert not here.peer.requests
    change(here, {MOST: 2})
    await here.settle()
    assert list(here.peer.requests) == [1, 3]
    change(here, {MOST: 100})
    await here.settle()
    assert list(here.peer.requests) == [1, 3, 5]
    for task in asking:
        (await task).cancel()


async def test_a_place_that_never_comes(line):
    here = line(settings={MOST: 0})
    with pytest.raises(TimeoutError):
        await here.call(idle=0.01)
    assert not here.connection._flow.has_waiters


async def test_thousands_of_calls_given_up_with_data_under_way(line):
    """What came for them is given back to the server: the connection's window is as large as ever."""
    here = line()
    payload = grpc_message(b"x" * 16_000)
    for _ in range(2_000):
        call = await here.call()
        here.peer.open(call.stream)
        here.peer.h2.send_data(call.stream, payload)
        late = here.peer.h2.data_to_send()
        call.cancel()
        here.connection.data_received(late)
    assert len(here.peer.resets) == 2_000
    assert here.connection._receive_window == here.peer.h2.outbound_flow_control_window
    assert here.connection._receive_window > frames.MAX_WINDOW_BYTES - 2_001 * len(payload)
    here.connection._receive_window = frames.MAX_WINDOW_BYTES // 2 + 1  # as after a gigabyte
    here.peer.h2.outbound_flow_control_window = here.connection._receive_window
    call = await here.call()
    here.peer.open(call.stream)
    here.peer.send_messages(call.stream, b"more")
    assert here.connection._receive_window == frames.MAX_WINDOW_BYTES == here.peer.h2.outbound_flow_control_window
    call.cancel()
