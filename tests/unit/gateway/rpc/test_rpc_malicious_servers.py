"""Servers that break the protocol, or send more than a client can store."""

import asyncio
import random
from contextlib import suppress

import pytest

from gateway.triton.rpc import frames
from gateway.triton.rpc.frames import FrameType
from gateway.triton.rpc.status import RpcError, Status
from tests.unit.gateway.rpc.h2_peer import HEAD, OK, ConnectedPair, grpc_message, read_all


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


@pytest.mark.parametrize(
    "written",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        frames.encode_frame(FrameType.DATA, 0, 1, bytes(16_385)),
        frames.encode_frame(FrameType.DATA, frames.PADDED, 1, b"\5abc"),
        frames.encode_frame(FrameType.DATA, frames.PADDED, 1, b""),
        frames.encode_frame(FrameType.DATA, 0, 0, b"abc"),
        frames.encode_frame(FrameType.DATA, 0, 2, b"abc"),
        frames.encode_frame(FrameType.DATA, 0, 3, b"abc"),
        frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, 3, b"\x88"),
        frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\x0f"),
        frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, 1, b"\0\x7f"),
        frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, 1, b"\x3f\xff\xff\x0f"),
        frames.encode_frame(FrameType.HEADERS, frames.PRIORITY | frames.END_HEADERS, 1, b"\0\0"),
        frames.encode_frame(FrameType.HEADERS, 0, 1, b"\x88") + frames.encode_frame(FrameType.DATA, 0, 1, b"abc"),
        frames.encode_frame(FrameType.HEADERS, 0, 1, b"\x88") + frames.encode_frame(FrameType.CONTINUATION, 0, 3, b""),
        frames.encode_frame(FrameType.CONTINUATION, frames.END_HEADERS, 1, b"\x88"),
        frames.encode_frame(FrameType.RST_STREAM, 0, 1, b"abc"),
        frames.encode_frame(FrameType.RST_STREAM, 0, 5, bytes(4)),
        frames.encode_frame(FrameType.SETTINGS, 0, 0, b"abc"),
        frames.encode_settings({frames.Setting.INITIAL_WINDOW_SIZE: 2**31}),
        frames.encode_frame(FrameType.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(5)),
        frames.encode_frame(FrameType.GOAWAY, 0, 0, b"abc"),
        frames.encode_frame(FrameType.WINDOW_UPDATE, 0, 0, b"abc"),
        frames.encode_frame(FrameType.WINDOW_UPDATE, 0, 9, bytes(4)),
    ],
)
async def test_a_server_without_http2_is_unavailable(written):
    pair = ConnectedPair()
    call = await pair.call()
    pair.connection.data_received(written)
    with pytest.raises(RpcError) as failure:
        await call.read()
    assert failure.value.status is Status.UNAVAILABLE
    assert "does not speak gRPC" in failure.value.message
    assert pair.connection.closed and not pair.connection._receive_buffer
    pair.connection.data_received(written)  # the rest of what was under way
    assert frames.encode_frame(FrameType.GOAWAY, 0, 0, bytes(7) + b"\1") in pair.wire.written


async def test_endless_headers_end_the_connection():
    """Each frame is small. Together they exceed the limit."""
    pair = ConnectedPair()
    call = await pair.call()
    pair.connection.data_received(frames.encode_frame(FrameType.HEADERS, 0, 1, b""))
    for _ in range(70):
        pair.connection.data_received(frames.encode_frame(FrameType.CONTINUATION, 0, 1, bytes(16_384)))
    assert call.done and pair.connection.closed


async def test_header_bombs_are_refused():
    pair = ConnectedPair()
    call = await pair.call()
    entry = b"\x40\1a\x7f\x81\x1e" + b"v" * 4_000
    pair.connection.data_received(
        frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, 1, entry + b"\xbe" * 10_000)
    )
    with pytest.raises(RpcError, match="headers cannot be read"):
        await call.read()


async def test_repeated_headers_are_refused(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    for number in range(100):
        block = literal(b"x-%d" % number, b"y" * 100)
        pair.connection.data_received(frames.encode_frame(FrameType.HEADERS, frames.END_HEADERS, 1, block))
    with pytest.raises(RpcError, match="response headers twice"):
        await call.read()
    assert pair.peer.resets == [(1, 8)]
    assert len(call._headers) == 2


@pytest.mark.parametrize("frame", [frames.encode_settings({}), frames.encode_frame(FrameType.PING, 0, 0, bytes(8))])
async def test_settings_and_pings_of_a_server_that_does_not_read_are_bounded(frame):
    pair = ConnectedPair()
    call = await pair.call()
    pair.wire.stuck = 0
    pair.connection.pause_writing()
    for _ in range(2_000):
        pair.connection.data_received(frame * 100)
        if pair.connection.closed:
            break
    assert pair.wire.aborted and pair.wire.stuck < 1_100_000
    with pytest.raises(RpcError, match="does not read"):
        await call.read()


async def test_pings_of_a_server_that_reads_are_answered(make_pair):
    pair = make_pair()
    for _ in range(100):
        pair.connection.data_received(frames.encode_frame(FrameType.PING, 0, 0, bytes(8)) * 100)
    assert len(pair.peer.pings) == 10_000
    assert pair.connection.accepts_calls


async def test_empty_frames_are_ignored(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    for _ in range(1_000):
        pair.connection.data_received(frames.encode_frame(FrameType.DATA, 0, 1) * 10)
    assert not call._messages and not call._partial_message
    pair.peer.send_messages(1, b"one")
    pair.peer.end(1)
    assert await read_all(call) == [b"one"]


async def test_data_beyond_the_window_is_an_error():
    pair = ConnectedPair()
    call = await pair.call()
    pair.peer.open(1)
    for _ in range(5):
        pair.connection.data_received(frames.encode_frame(FrameType.DATA, 0, 1, grpc_message(bytes(16_000))))
    with pytest.raises(RpcError, match="more than the flow-control window allows"):
        await read_all(call)


async def test_any_split_of_valid_frames_is_read():
    for seed in range(30):
        await _write_and_split(random.Random(seed))


async def _write_and_split(rng: random.Random) -> None:
    pair, messages = ConnectedPair(), {}
    written: list[bytes] = []
    pair.peer.sends = written.append
    opened: set[int] = set()
    streams: list[tuple[int, bytearray]] = []
    calls = {}
    for _ in range(rng.randint(1, 6)):
        call = await pair.call()
        calls[call.stream] = call
        messages[call.stream] = [rng.randbytes(rng.choice([0, 1, 5, 300, 3_000])) for _ in range(rng.randint(0, 6))]
        streams.append((call.stream, bytearray(b"".join(map(grpc_message, messages[call.stream])))))
    while streams:
        entry = rng.choice(streams)
        stream, rest = entry
        h2 = pair.peer.h2
        match rng.randrange(8):
            case 0:
                h2.ping(rng.randbytes(8))
            case 1:
                h2.update_settings({4: rng.randrange(2**31)})
            case 2:
                h2.increment_flow_control_window(rng.randint(1, 1_000))
            case 3:
                written.append(
                    frames.encode_frame(rng.randint(10, 255), rng.randrange(256), rng.randrange(2**31), b"?")
                )
            case _ if stream not in opened:
                h2.send_headers(stream, [*HEAD, ("x-some", "y" * rng.choice([1, 10, 300]))])
                opened.add(stream)
            case _ if rest:
                size = rng.randint(0, min(len(rest), 9_000))
                h2.send_data(stream, bytes(rest[:size]), pad_length=rng.choice([None, 0, 3, 255]))
                del rest[:size]
            case _:
                h2.send_headers(stream, [*OK, ("grpc-message", "%41")], end_stream=True)
                streams.remove(entry)
        pair.peer.flush()
    whole = b"".join(written)
    reading = {stream: asyncio.create_task(read_all(call)) for stream, call in calls.items()}
    at = 0
    while at < len(whole):
        size = rng.choice([1, 9, 10, 100, 1_000, 20_000])
        pair.connection.data_received(whole[at : at + size])
        at += size
        if not rng.randrange(4):
            await asyncio.sleep(0)
    assert {stream: await task for stream, task in reading.items()} == messages
    assert pair.peer.resets == [] and pair.peer.wrong == []
    pair.connection.close()


async def test_garbage_never_raises_and_never_hangs():
    for seed in range(150):
        await _garbage(random.Random(seed))


async def _garbage(rng: random.Random) -> None:
    pair = ConnectedPair()
    calls = [await pair.call() for _ in range(3)]
    pair.wire.peer.sends = None
    pair.wire.stuck = 0
    for _ in range(rng.randint(1, 60)):
        kind, stream = rng.choice([*range(10), rng.randrange(256)]), rng.choice([0, 1, 1, 3, 5, 7])
        content = rng.randbytes(rng.choice([0, 1, 4, 4, 5, 6, 8, 12, 40, 500]))
        if rng.random() < 0.5:
            content = rng.choice([grpc_message(content), b"\x88", literal(b"grpc-status", b"%d" % rng.randrange(20))])
        data = frames.encode_frame(kind, rng.choice([0, 1, 4, 5, 8, 32, rng.randrange(256)]), stream, content)
        if rng.random() < 0.1:
            data = rng.randbytes(rng.randint(1, 100))
        pair.connection.data_received(data)
    pair.connection.connection_lost(None)
    for call in calls:
        with suppress(RpcError):
            await read_all(call)
        assert call.done
    assert not pair.connection._calls
    pair.connection.close()
