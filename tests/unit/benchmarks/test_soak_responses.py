"""Parsing of the soak's answers, and their comparison with the baselines."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.soak import responses
from benchmarks.soak.client import Response
from benchmarks.soak.responses import ChatAnswer, Embeddings, Images, InvalidResponse

UNSTREAMED = json.dumps({"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}]}).encode()


def event(text: str = "", reason: str | None = None) -> bytes:
    chunk = {"choices": [{"delta": {"content": text} if text else {}, "finish_reason": reason}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


STREAM = event("Pa") + event("ris.") + event(reason="stop") + b"data: [DONE]\n\n"


def png(size: tuple[int, int] = (4, 2), value: int = 7, image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, image_format)
    return file.getvalue()


def images_json(*files: bytes) -> bytes:
    return json.dumps({"data": [{"b64_json": base64.b64encode(file).decode()} for file in files]}).encode()


def test_a_chat_is_equal_streamed_and_unstreamed() -> None:
    assert responses.parse_chat(UNSTREAMED) == responses.parse_chat(STREAM) == ChatAnswer("Paris.", "stop")


def test_a_truncated_stream_is_invalid_unless_the_client_disconnected() -> None:
    with pytest.raises(InvalidResponse, match="DONE"):
        responses.parse_chat(STREAM[:-20])
    for length in range(len(event("Pa") + event("ris."))):
        partial = responses.parse_chat(STREAM[:length], truncated=True)
        assert not partial.finish_reason and not partial.difference(ChatAnswer("Paris.", "stop"))


def test_the_error_of_a_failed_stream_is_raised() -> None:
    failed = event("Pa") + b'data: {"code": 1007, "message": "The engine stopped.", "error": {}}\n\n'
    with pytest.raises(InvalidResponse, match="The engine stopped"):
        responses.parse_chat(failed)


@pytest.mark.parametrize("other", [ChatAnswer("Paris", "stop"), ChatAnswer("Paris.", "length"), ChatAnswer("Berlin")])
def test_a_different_answer_has_a_difference(other: ChatAnswer) -> None:
    assert other.difference(ChatAnswer("Paris.", "stop"))


def test_embeddings_are_equal_as_floats_and_as_base64() -> None:
    rows = np.array([[0.6, 0.8], [1.0, 0.0]], "<f4")
    floats = json.dumps({"data": [{"embedding": row.tolist()} for row in rows]}).encode()
    packed = json.dumps({"data": [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in rows]}).encode()
    assert not responses.parse_embeddings(floats).difference(responses.parse_embeddings(packed))
    assert Embeddings(rows + 2 * responses.MAX_NUMBER_DIFFERENCE).difference(Embeddings(rows))
    assert Embeddings(rows[:1]).difference(Embeddings(rows))


@pytest.mark.parametrize("row", [[0.6, 0.7], [float("nan"), 1.0]])
def test_an_embedding_of_another_length_than_1_is_invalid(row: list[float]) -> None:
    with pytest.raises(InvalidResponse):
        responses.parse_embeddings(json.dumps({"data": [{"embedding": row}]}).encode())


def test_images_are_equal_streamed_and_unstreamed() -> None:
    files = [png(value=1), png(value=9)]
    events = b"".join(
        b"event: x\ndata: "
        + json.dumps(
            {
                "type": f"image_generation.{event_type}",
                "index": index,
                "b64_json": base64.b64encode(files[index]).decode(),
            }
        ).encode()
        + b"\n\n"
        for event_type, index in (("partial_image", 0), ("completed", 1), ("completed", 0))
    )
    streamed = responses.parse_images(events + b"data: [DONE]\n\n", (4, 2), 2)
    assert not streamed.difference(responses.parse_images(images_json(*files), (4, 2), 2))
    with pytest.raises(InvalidResponse, match="DONE"):
        responses.parse_images(events, (4, 2), 2)


@pytest.mark.parametrize(
    "answer",
    [
        images_json(png((2, 4))),
        images_json(png(image_format="JPEG")),
        images_json(b"GIF"),
        images_json(png()[:-20]),
        images_json(),
    ],
)
def test_an_image_of_another_size_or_format_is_invalid(answer: bytes) -> None:
    with pytest.raises(InvalidResponse):
        responses.parse_images(answer, (4, 2), 1)


def test_images_may_differ_by_rounding() -> None:
    def image(value: int) -> Images:
        return responses.parse_image_file(png(value=value), (4, 2))

    assert not image(9).difference(image(7)) and image(10).difference(image(7)) and image(0).difference(image(255))


def test_structured_answers_that_ended_must_match_their_schema() -> None:
    check = responses.matches_schema({"type": "object", "required": ["a"]})
    assert not check(ChatAnswer('{"a":1}', "stop")) and not check(ChatAnswer('{"a', "length"))
    assert check(ChatAnswer("{}", "stop")) and check(ChatAnswer('{"a', "stop"))


def test_a_refusal_needs_an_error_message_and_retry_after() -> None:
    body = json.dumps({"error": {"message": "This is too much."}}).encode()
    assert not Response(400, {}, body).refusal_error() and not Response(429, {"retry-after": "1"}, body).refusal_error()
    assert Response(429, {}, body).refusal_error() and Response(503, {"retry-after": "0"}, body).refusal_error()
    assert (
        Response(400, {}, b"<html>").refusal_error()
        and Response(400, {}, b'{"error": {"message": " "}}').refusal_error()
    )
    assert Response(400, {}, b'{"error": {"message": "Traceback (most recent"}}').refusal_error()
