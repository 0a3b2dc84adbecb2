"""Blocks of headers, read as hpack reads them, whatever the table holds by then."""

from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from gateway.triton.rpc import frames
from gateway.triton.rpc.headers import HeaderDecoder

NAMES = st.sampled_from([b":status", b"content-type", b"grpc-status", b"grpc-message", b"x-a", b"x-b"])
VALUES = st.sampled_from([b"200", b"0", b"", b"application/grpc", b"a" * 40, b"b" * 40])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4, unique_by=lambda field: field[0])


def read(reader: HeaderDecoder, block: bytes) -> dict[bytes, bytes] | None:
    return reader.begin(frames.END_HEADERS, 1, block)


@given(st.lists(FIELDS, max_size=12), st.sampled_from([0, 64, 200, 4096]))
def test_responses_are_decoded_alike_after_any_others(answers: list[list[tuple[bytes, bytes]]], table: int) -> None:
    """Small tables forget, so that the same block comes to mean other fields."""
    encoder, decoder, reader = Encoder(), Decoder(), HeaderDecoder()
    encoder.header_table_size = table
    for fields in answers:
        for _ in range(2):
            block = encoder.encode(fields)
            assert read(reader, block) == dict(decoder.decode(block, raw=True)) == dict(fields)


def test_decoded_headers_are_not_shared() -> None:
    encoder, reader = Encoder(), HeaderDecoder()
    fields = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    for _ in range(3):
        headers = read(reader, encoder.encode(fields))
        assert headers == dict(fields)
        headers.clear()


def test_the_header_table_is_bounded() -> None:
    reader = HeaderDecoder()
    for first in range(0x82, 0x87):
        for second in range(0x88, 0x8F):
            for third in range(0x90, 0x99):
                assert read(reader, bytes([first, second, third]))
    assert len(reader._cache) <= 64
