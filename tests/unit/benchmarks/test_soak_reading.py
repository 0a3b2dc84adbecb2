"""The soak reads answers rightly, and sees where one is another than it was alone."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.soak import reading
from benchmarks.soak.asking import Answer
from benchmarks.soak.reading import Drawn, Rows, Said, Unreadable

WHOLE = json.dumps({"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}]}).encode()


def event(text: str = "", reason: str | None = None) -> bytes:
    chunk = {"choices": [{"delta": {"content": text} if text else {}, "finish_reason": reason}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


STREAM = event("Pa") + event("ris.") + event(reason="stop") + b"data: [DONE]\n\n"


def png(size: tuple[int, int] = (4, 2), value: int = 7, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, kind)
    return file.getvalue()


def drawn(*files: bytes) -> bytes:
    return json.dumps({"data": [{"b64_json": base64.b64encode(file).decode()} for file in files]}).encode()


def test_a_chat_is_the_same_whole_and_streamed() -> None:
    assert reading.chat(WHOLE) == reading.chat(STREAM) == Said("Paris.", "stop")


def test_a_stream_without_its_end_is_a_fault_unless_its_client_hung_up() -> None:
    with pytest.raises(Unreadable, match="DONE"):
        reading.chat(STREAM[:-20])
    for length in range(len(event("Pa") + event("ris."))):
        cut = reading.chat(STREAM[:length], cut=True)
        assert not cut.reason and not cut.differs(Said("Paris.", "stop"))


def test_a_stream_that_failed_says_so() -> None:
    failed = event("Pa") + b'data: {"code": 1007, "message": "The engine stopped.", "error": {}}\n\n'
    with pytest.raises(Unreadable, match="The engine stopped"):
        reading.chat(failed)


@pytest.mark.parametrize("other", [Said("Paris", "stop"), Said("Paris.", "length"), Said("Berlin")])
def test_another_answer_differs(other: Said) -> None:
    assert other.differs(Said("Paris.", "stop"))


def test_embeddings_are_the_same_as_floats_and_as_base64() -> None:
    rows = np.array([[0.6, 0.8], [1.0, 0.0]], "<f4")
    floats = json.dumps({"data": [{"embedding": row.tolist()} for row in rows]}).encode()
    packed = json.dumps({"data": [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in rows]}).encode()
    assert not reading.embeddings(floats).differs(reading.embeddings(packed))
    assert Rows(rows + 2 * reading.CLOSEST_NUMBERS).differs(Rows(rows))
    assert Rows(rows[:1]).differs(Rows(rows))


@pytest.mark.parametrize("row", [[0.6, 0.7], [float("nan"), 1.0]])
def test_a_row_of_another_length_than_1_is_a_fault(row: list[float]) -> None:
    with pytest.raises(Unreadable):
        reading.embeddings(json.dumps({"data": [{"embedding": row}]}).encode())


def test_pictures_are_the_same_whole_and_streamed() -> None:
    files = [png(value=1), png(value=9)]
    events = b"".join(
        b"event: x\ndata: "
        + json.dumps(
            {"type": f"image_generation.{kind}", "index": index, "b64_json": base64.b64encode(files[index]).decode()}
        ).encode()
        + b"\n\n"
        for kind, index in (("partial_image", 0), ("completed", 1), ("completed", 0))
    )
    streamed = reading.pictures(events + b"data: [DONE]\n\n", (4, 2), 2)
    assert not streamed.differs(reading.pictures(drawn(*files), (4, 2), 2))
    with pytest.raises(Unreadable, match="DONE"):
        reading.pictures(events, (4, 2), 2)


@pytest.mark.parametrize(
    "answer", [drawn(png((2, 4))), drawn(png(kind="JPEG")), drawn(b"GIF"), drawn(png()[:-20]), drawn()]
)
def test_what_is_no_picture_of_the_size_is_a_fault(answer: bytes) -> None:
    with pytest.raises(Unreadable):
        reading.pictures(answer, (4, 2), 1)


def test_pictures_may_differ_by_rounding_alone() -> None:
    def of(value: int) -> Drawn:
        return reading.file(png(value=value), (4, 2))

    assert not of(9).differs(of(7)) and of(10).differs(of(7)) and of(0).differs(of(255))


def test_structures_are_held_to_their_schema_where_they_have_ended() -> None:
    check = reading.follows({"type": "object", "required": ["a"]})
    assert not check(Said('{"a":1}', "stop")) and not check(Said('{"a', "length"))
    assert check(Said("{}", "stop")) and check(Said('{"a', "stop"))


def test_a_refusal_needs_a_sentence_and_a_time_to_come_back() -> None:
    body = json.dumps({"error": {"message": "This is too much."}}).encode()
    assert not Answer(400, {}, body).refusal() and not Answer(429, {"retry-after": "1"}, body).refusal()
    assert Answer(429, {}, body).refusal() and Answer(503, {"retry-after": "0"}, body).refusal()
    assert Answer(400, {}, b"<html>").refusal() and Answer(400, {}, b'{"error": {"message": " "}}').refusal()
    assert Answer(400, {}, b'{"error": {"message": "Traceback (most recent"}}').refusal()
