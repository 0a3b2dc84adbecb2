"""Received messages, however frames split them, and the end of a call."""

from types import SimpleNamespace

import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, SettingsFrame

from gateway.triton.rpc import frames
from gateway.triton.rpc.connection import Connection
from gateway.triton.rpc.status import RpcError, Status
from tests.unit.gateway.rpc.h2_peer import HEAD, OK, ConnectedPair, grpc_message, read_all

MESSAGES = [b"first", b"", b"x" * 300, b"last"]


async def test_one_message_out_and_one_in(make_pair):
    pair = make_pair()
    call = await pair.call(b"question")
    assert await pair.peer.wait_for_request(1) == b"question"
    assert pair.peer.headers[1][":path"] == "/a.B/C"
    pair.peer.answer(1, b"answer")
    assert await read_all(call) == [b"answer"]
    assert call.done


async def test_several_messages_in_one_frame_are_read(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.send_messages(1, *MESSAGES)
    assert call.has_message
    pair.peer.end(1)
    assert await read_all(call) == MESSAGES
    assert not call.has_message


async def test_every_split_into_two_frames(make_pair):
    pair, whole = make_pair(), b"".join(map(grpc_message, [*MESSAGES[:2], b"x" * 7]))
    for at in range(len(whole) + 1):
        call = await pair.call()
        pair.peer.open(call.stream)
        for part in (whole[:at], whole[at:]):
            pair.peer.h2.send_data(call.stream, part)
            pair.peer.flush()
        pair.peer.end(call.stream)
        assert await read_all(call) == [*MESSAGES[:2], b"x" * 7]


async def test_every_byte_in_a_frame_of_its_own(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    for byte in b"".join(map(grpc_message, MESSAGES)):
        pair.peer.h2.send_data(1, bytes([byte]))
        pair.peer.flush()
    pair.peer.end(1)
    assert await read_all(call) == MESSAGES


def _answered(peer) -> bytes:
    """All that a server says to one call, with padding, a priority, CONTINUATION and frames of unknown kinds."""
    written, peer.sends = [], lambda data: written.append(data)
    peer.raw(frames.encode_frame(0xFA, 0xFF, 77, b"unknown"))
    peer.raw(SettingsFrame(0, settings={0xF00: 7, frames.Setting.MAX_CONCURRENT_STREAMS: 50}).serialize())
    block = peer.h2.encoder.encode(HEAD)
    peer.raw(HeadersFrame(1, block[:3], flags=["PADDED"], pad_length=2).serialize())
    peer.raw(ContinuationFrame(1, b"").serialize())
    peer.raw(ContinuationFrame(1, block[3:], flags=["END_HEADERS"]).serialize())
    peer.raw(DataFrame(1, grpc_message(b"first") + grpc_message(b"")).serialize())
    peer.raw(DataFrame(1, grpc_message(b"x" * 300), flags=["PADDED"], pad_length=99).serialize())
    peer.raw(frames.encode_frame(frames.FrameType.PRIORITY, 0, 1, bytes(5)))
    peer.raw(DataFrame(1, grpc_message(b"last")).serialize())
    block = peer.h2.encoder.encode([*OK, ("grpc-message", "fine")])
    peer.raw(HeadersFrame(1, block[:1], flags=["END_STREAM", "PRIORITY"]).serialize())
    peer.raw(ContinuationFrame(1, block[1:], flags=["END_HEADERS"]).serialize())
    return b"".join(written)


async def test_every_split_of_the_bytes_is_read():
    reference = ConnectedPair()
    await reference.call()
    whole = _answered(reference.peer)
    reference.connection.close()
    for at in range(len(whole)):
        pair = ConnectedPair()
        call = await pair.call()
        pair.connection.data_received(whole[:at])
        pair.connection.data_received(whole[at:])
        assert await read_all(call) == MESSAGES, at
        pair.connection.close()


async def test_bytes_that_arrive_one_by_one_are_read():
    reference = ConnectedPair()
    await reference.call()
    whole = _answered(reference.peer)
    reference.connection.close()
    pair = ConnectedPair()
    call = await pair.call()
    for at in range(len(whole)):
        pair.connection.data_received(whole[at : at + 1])
    assert await read_all(call) == MESSAGES
    pair.connection.close()


async def test_padding_and_priority_of_headers_are_skipped(make_pair):
    pair = make_pair()
    call = await pair.call()
    block = pair.peer.h2.encoder.encode(HEAD)
    frame = HeadersFrame(1, block, flags=["END_HEADERS", "PADDED", "PRIORITY"], pad_length=17)
    pair.peer.raw(frame.serialize())
    pair.peer.raw(DataFrame(1, grpc_message(b"answer"), flags=["PADDED"], pad_length=0).serialize())
    trailers = pair.peer.h2.encoder.encode(OK)
    pair.peer.raw(HeadersFrame(1, trailers, flags=["END_HEADERS", "END_STREAM", "PADDED"]).serialize())
    assert await read_all(call) == [b"answer"]


async def test_pings_are_answered(make_pair):
    pair = make_pair()
    pair.peer.h2.ping(b"12345678")
    pair.peer.flush()
    assert pair.peer.pings == [b"12345678"]
    pair.peer.raw(PingFrame(0, b"87654321", flags=["ACK"]).serialize())  # nobody asked: nothing to say


async def test_a_message_longer_than_the_window_is_read(make_pair):
    pair, message = make_pair(), bytes(range(256)) * 4_000
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.upload(1, grpc_message(message) + grpc_message(b"after"))
    assert await read_all(call) == [message, b"after"]


async def test_a_long_message_needs_few_window_updates(make_pair, monkeypatch):
    pair = make_pair()
    call = await pair.call()
    updates = []
    connection = call._connection

    def write(data):
        updates.append(data)
        connection.write(data)

    monkeypatch.setattr(call, "_connection", SimpleNamespace(write=write, call_ended=connection.call_ended))
    pair.peer.open(1)
    pair.peer.upload(1, grpc_message(bytes(500_000)))
    assert await call.read() == bytes(500_000)
    assert len(updates) == 1
    # Then the window is the usual one again.
    assert pair.peer.h2.local_flow_control_window(1) <= frames.DEFAULT_WINDOW_BYTES


async def test_an_idle_reader_stops_only_its_own_stream(make_pair):
    pair = make_pair()
    slow, quick = await pair.call(), await pair.call()
    pair.peer.open(1)
    pair.peer.upload(1, grpc_message(b"x" * 1_000) * 500)
    assert not pair.peer.is_uploaded(1)
    assert pair.peer.h2.remote_flow_control_window(1) >= 0
    assert sum(map(len, slow._messages)) + len(slow._partial_message) <= frames.DEFAULT_WINDOW_BYTES
    pair.peer.open(3)
    pair.peer.upload(3, grpc_message(b"y" * 1_000) * 500)
    assert len(await read_all(quick)) == 500
    assert not pair.peer.is_uploaded(1)
    assert len(await read_all(slow)) == 500


async def test_large_unread_messages_do_not_stall(make_pair):
    """A message that is not whole must not be waited for by a server that may send no more of it."""
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.upload(1, grpc_message(b"x" * 40_000) * 20)
    assert await read_all(call) == [b"x" * 40_000] * 20


@pytest.mark.parametrize(
    "trailers, status, message",
    [
        ([("grpc-status", "5"), ("grpc-message", "no model")], Status.NOT_FOUND, "no model"),
        (
            [("grpc-status", "3"), ("grpc-message", "%C3%A9%20%F0%9F%98%80 100% %zz")],
            Status.INVALID_ARGUMENT,
            "é 😀 100% %zz",
        ),
        ([("grpc-status", "13"), ("grpc-message", "%FF")], Status.INTERNAL, "\ufffd"),
        ([("grpc-status", "14")], Status.UNAVAILABLE, ""),
        ([("grpc-status", "99")], Status.UNKNOWN, ""),
        ([("grpc-status", "9" * 5_000)], Status.UNKNOWN, ""),
        ([("grpc-status", "-1")], Status.UNKNOWN, "The server ended the call without a status."),
        ([("x-other", "1")], Status.UNKNOWN, "The server ended the call without a status."),
    ],
)
@pytest.mark.parametrize("only", [True, False])
async def test_trailers_become_the_status(make_pair, trailers, status, message, only):
    pair = make_pair()
    call = await pair.call()
    if only:
        pair.peer.end(1, [*HEAD, *trailers])
    else:
        pair.peer.open(1)
        pair.peer.send_messages(1, b"one")
        pair.peer.end(1, trailers)
        assert await call.read() == b"one"
    for _ in range(2):
        with pytest.raises(RpcError) as failure:
            await call.read()
        assert (failure.value.status, failure.value.message) == (status, message)
    assert pair.peer.resets == []


@pytest.mark.parametrize("code", ["400", "401", "403", "404", "429", "500", "502", "503", "504"])
@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b""])
async def test_http_errors(make_pair, code, body):
    pair = make_pair()
    call = await pair.call()
    pair.peer.h2.send_headers(1, [(":status", code), ("content-type", "text/html")], end_stream=not body)
    pair.peer.flush()
    if body and not pair.peer.resets:
        pair.peer.h2.send_data(1, body, end_stream=True)
        pair.peer.flush()
    with pytest.raises(RpcError, match=f"HTTP status {code}") as failure:
        await call.read()
    expected = {"400": "INTERNAL", "401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED", "404": "UNIMPLEMENTED"}
    assert failure.value.status.name == expected.get(code, "UNKNOWN" if code == "500" else "UNAVAILABLE")


async def test_an_html_page_is_no_response(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1, [(":status", "200"), ("content-type", "text/html")])
    with pytest.raises(RpcError, match="text/html"):
        await call.read()


async def test_interim_responses_are_skipped(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.h2.send_headers(1, [(":status", "103"), ("link", "x")])
    pair.peer.answer(1, b"answer")
    assert await read_all(call) == [b"answer"]


async def test_a_stream_without_trailers_fails(make_pair):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.h2.send_data(1, grpc_message(b"one"), end_stream=True)
    pair.peer.flush()
    assert await call.read() == b"one"
    with pytest.raises(RpcError, match="without a status"):
        await call.read()


@pytest.mark.parametrize("received", [1, 4, 5, 9])
async def test_a_truncated_message_fails(make_pair, received):
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.h2.send_data(1, grpc_message(b"whole") + grpc_message(b"question")[:received])
    pair.peer.end(1)
    assert await call.read() == b"whole"
    with pytest.raises(RpcError, match="truncated") as failure:
        await call.read()
    assert failure.value.status is Status.INTERNAL


@pytest.mark.parametrize("start", [grpc_message(b"x", compressed=1), b"\1", b"\0\xff\xff\xff\xff", b"\0\x10\0\0\1abc"])
async def test_invalid_messages_fail(make_pair, start):
    """Compressed ones, and ones that would fill the memory: given up as soon as they are announced."""
    pair = make_pair()
    call = await pair.call()
    pair.peer.open(1)
    pair.peer.send_messages(1, b"one")
    for byte in start:
        if not call.done:
            pair.peer.h2.send_data(1, bytes([byte]))
            pair.peer.flush()
    assert await call.read() == b"one"
    with pytest.raises(RpcError, match=r"compressed|too long") as failure:
        await call.read()
    assert failure.value.status is Status.INTERNAL
    call.cancel()
    assert pair.peer.resets == [(1, 8)]


async def test_the_connection_begins_with_its_settings():
    connection = Connection()
    assert connection.closed
    pair = ConnectedPair()
    assert pair.peer.h2.remote_settings.enable_push == 0
    assert pair.peer.h2.outbound_flow_control_window == frames.MAX_WINDOW_BYTES
    assert pair.peer.settled == 1
    pair.connection.close()
