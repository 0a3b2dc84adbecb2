"""Timings of streams whose tokens carry their send time, and the tables of them."""

import asyncio
from typing import Any

import pytest

from benchmarks import gateway_overhead
from benchmarks.timed_streams import StreamTimings, chat_body, collect, run_streams

MS = 1_000_000
DONE = b"data: [DONE]\n\n"


def token(sent: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":" %019d"}}]}\n\n' % sent


def timings_of(chunks: list[tuple[int, bytes]], **fields: Any) -> StreamTimings:
    timings = StreamTimings()
    collect(timings, [(0, chunks)], {**chat_body("scripted", 2, stream=True), **fields})
    return timings


def test_a_complete_stream_has_the_time_of_each_token() -> None:
    timings = timings_of([(5 * MS, token(2 * MS)), (9 * MS, token(8 * MS) + DONE)])
    assert timings.errors == []
    assert timings.first_token_seconds == [0.005]
    assert timings.token_delays == pytest.approx([0.003, 0.001])


def test_a_token_in_two_chunks_arrives_with_its_last_byte() -> None:
    whole = token(2 * MS) + token(3 * MS) + DONE
    for cut in range(1, len(whole)):
        timings = timings_of([(5 * MS, whole[:cut]), (9 * MS, whole[cut:])])
        assert (timings.tokens, timings.errors) == (2, []), cut


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        ([], "0 tokens came"),
        ([(5 * MS, token(2 * MS) + DONE)], "1 tokens came"),
        ([(5 * MS, token(2 * MS)), (6 * MS, b'data: {"error":{}}\n\n')], "1 tokens came"),
        ([(5 * MS, token(2 * MS) + token(3 * MS))], "a stream was cut off"),
    ],
)
def test_an_incomplete_stream_is_an_error(chunks: list[tuple[int, bytes]], error: str) -> None:
    assert timings_of(chunks).errors == [error]


def test_an_answer_without_streaming_needs_no_done_event() -> None:
    assert timings_of([(5 * MS, b'{"content":" %019d %019d"}' % (MS, 2 * MS))], stream=False).errors == []


def test_thresholds_have_the_values_of_the_loads_that_they_name() -> None:
    def result(streams: int, first: list[float], max_open: int = 0) -> gateway_overhead.LoadResult:
        return gateway_overhead.LoadResult(
            streams, StreamTimings(1.0, first, [0.001] * 1000, [], max_open), 0.05, 100.0
        )

    loads = [(64, 0.02, 128), (1024, 0.32, 16)]
    results = [(result(64, [0.003, 0.003]), [0.002, 0.002]), (result(1024, [0.1], 1024), [0.1])]
    table = gateway_overhead._paced_table(results, loads)
    values = {threshold.name: threshold.value for threshold in table.thresholds}
    assert values["added time to the first token, p50 at 64 streams"] == pytest.approx(1.0)
    assert values["errors with 1,024 streams open, paced"] == 0
    assert values["streams open at once of 1,024, paced"] == 1024
    assert table.values("gateway CPU") == pytest.approx([50.0, 50.0])


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = HEAD + chunked(token(MS)) + chunked(token(2 * MS) + DONE) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "connections", "error"),
    [
        (WHOLE, 2, ""),
        (WHOLE.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), 6, ""),
        (WHOLE.replace(b"200", b"500"), 2, "500 "),
        (HEAD + chunked(token(MS)), 6, "ConnectionError: the connection was closed"),
        (b"", 6, "ConnectionError: the connection was closed"),
        (b"what?\r\n\r\n", 6, "HttpParserError"),
    ],
)
async def test_a_connection_is_reused_unless_the_response_ends_or_breaks_it(
    response: bytes, connections: int, error: str
) -> None:
    accepted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.rpartition(b":")[2]))
                for start in range(0, len(response), 7):  # in pieces of seven bytes
                    writer.write(response[start : start + 7])
                    await asyncio.sleep(0)
                if not response.endswith(b"0\r\n\r\n"):
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        timings = await run_streams(f"http://127.0.0.1:{port}", chat_body("scripted", 2, stream=True), 2, 6)
    assert accepted == connections
    assert timings.max_open == 2
    if error:
        assert len([text for text in timings.errors if text.startswith(error)]) == 6
    else:
        assert (timings.errors, timings.tokens, len(timings.first_token_seconds)) == ([], 12, 6)
