"""What came of streams whose tokens bear the time when they were sent, and what is made of it."""

import asyncio
from typing import Any

import pytest

from benchmarks import gateway_overhead
from benchmarks.timed_streams import StreamTimings, chat_body, collect, run_streams

MS = 1_000_000
DONE = b"data: [DONE]\n\n"


def token(sent: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":" %019d"}}]}\n\n' % sent


def seen(parts: list[tuple[int, bytes]], **more: Any) -> StreamTimings:
    found = StreamTimings()
    collect(found, [(0, parts)], {**chat_body("scripted", 2, stream=True), **more})
    return found


def test_a_whole_stream() -> None:
    found = seen([(5 * MS, token(2 * MS)), (9 * MS, token(8 * MS) + DONE)])
    assert found.errors == []
    assert found.first_token_seconds == [0.005]
    assert found.token_delays == pytest.approx([0.003, 0.001])


def test_a_token_in_two_parts_came_with_its_end() -> None:
    whole = token(2 * MS) + token(3 * MS) + DONE
    for cut in range(1, len(whole)):
        found = seen([(5 * MS, whole[:cut]), (9 * MS, whole[cut:])])
        assert (found.tokens, found.errors) == (2, []), cut


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([], "0 tokens came"),
        ([(5 * MS, token(2 * MS) + DONE)], "1 tokens came"),
        ([(5 * MS, token(2 * MS)), (6 * MS, b'data: {"error":{}}\n\n')], "1 tokens came"),
        ([(5 * MS, token(2 * MS) + token(3 * MS))], "a stream was cut off"),
    ],
)
def test_what_is_not_whole_is_a_fault(parts: list[tuple[int, bytes]], fault: str) -> None:
    assert seen(parts).errors == [fault]


def test_an_answer_that_is_not_streamed_has_no_end_mark() -> None:
    assert seen([(5 * MS, b'{"content":" %019d %019d"}' % (MS, 2 * MS))], stream=False).errors == []


def test_bars_come_from_the_loads_that_they_name() -> None:
    def row(streams: int, first: list[float], opened: int = 0) -> gateway_overhead.LoadResult:
        return gateway_overhead.LoadResult(streams, StreamTimings(1.0, first, [0.001] * 1000, [], opened), 0.05, 100.0)

    loads = [(64, 0.02, 128), (1024, 0.32, 16)]
    rows = [(row(64, [0.003, 0.003]), [0.002, 0.002]), (row(1024, [0.1], 1024), [0.1])]
    table = gateway_overhead._paced(rows, loads)
    found = {bar.name: bar.found for bar in table.thresholds}
    assert found["added time to the first token, p50 at 64 streams"] == pytest.approx(1.0)
    assert found["errors with 1,024 streams open, paced"] == 0
    assert found["streams open at once of 1,024, paced"] == 1024
    assert table.values("gateway CPU") == pytest.approx([50.0, 50.0])


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = HEAD + chunked(token(MS)) + chunked(token(2 * MS) + DONE) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "connections", "fault"),
    [
        (WHOLE, 2, ""),
        (WHOLE.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), 6, ""),
        (WHOLE.replace(b"200", b"500"), 2, "500 "),
        (HEAD + chunked(token(MS)), 6, "ConnectionError: the connection was closed"),
        (b"", 6, "ConnectionError: the connection was closed"),
        (b"what?\r\n\r\n", 6, "HttpParserError"),
    ],
)
async def test_answers_of_a_server(answer: bytes, connections: int, fault: str) -> None:
    taken = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.rpartition(b":")[2]))
                for at in range(0, len(answer), 7):  # however it is cut
                    writer.write(answer[at : at + 7])
                    await asyncio.sleep(0)
                if not answer.endswith(b"0\r\n\r\n"):
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await run_streams(f"http://127.0.0.1:{port}", chat_body("scripted", 2, stream=True), 2, 6)
    assert taken == connections
    assert found.max_open == 2
    if fault:
        assert len([text for text in found.errors if text.startswith(fault)]) == 6
    else:
        assert (found.errors, found.tokens, len(found.first_token_seconds)) == ([], 12, 6)
