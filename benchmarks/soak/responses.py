"""Parses the answers of the soak, so that they can be compared with the answers to the same requests alone."""

import base64
import binascii
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonschema
import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_NUMBER_DIFFERENCE = 1e-4
"""Most by which a number of an embedding may differ, because other texts share its batch."""
MAX_PIXEL_DIFFERENCE = 2
"""Most by which a pixel may differ, of 255, because other images share its batch."""
_PNG_END = b"IEND\xaeB`\x82"
"""The last bytes of a PNG file. Pillow also opens files without them."""


class InvalidResponse(Exception):
    """An answer is invalid. The message says why."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A chat answer. `finish_reason` is empty if the answer was truncated."""

    text: str
    finish_reason: str = ""

    def difference(self, baseline: "ChatAnswer") -> str:
        """Return the difference from the baseline; "" if none. A truncated answer must be a prefix of the baseline."""
        if not self.finish_reason:
            return "" if baseline.text.startswith(self.text) else f"{self.text!r}, baseline {baseline.text!r}"
        return "" if self == baseline else f"{self}, baseline {baseline}"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of texts."""

    rows: Any
    """An array [texts, dimensions]."""

    def difference(self, baseline: "Embeddings") -> str:
        """Return the difference from the baseline; "" if none."""
        if self.rows.shape != baseline.rows.shape:
            return f"the shape is {self.rows.shape}, baseline {baseline.rows.shape}"
        largest = float(np.abs(self.rows - baseline.rows).max())
        return "" if largest <= MAX_NUMBER_DIFFERENCE else f"a number differs by {largest:.2g}"


@dataclass(frozen=True, slots=True)
class Images:
    """Generated images."""

    pixels: tuple[Any, ...]
    """An array [height, width, 3] of bytes for each image."""

    def difference(self, baseline: "Images") -> str:
        """Return the difference from the baseline; "" if none."""
        shapes, expected = ([image.shape for image in images.pixels] for images in (self, baseline))
        if shapes != expected:
            return f"the shapes are {shapes}, baseline {expected}"
        pairs = zip(self.pixels, baseline.pixels, strict=True)
        largest = max(int(np.abs(image.astype(int) - other.astype(int)).max()) for image, other in pairs)
        return "" if largest <= MAX_PIXEL_DIFFERENCE else f"a pixel differs by {largest} of 255"


def parse_chat(data: bytes, *, truncated: bool = False) -> ChatAnswer:
    """Parse a chat answer, JSON or server-sent events.

    Raises `InvalidResponse`, also for a stream without its last event, unless `truncated` allows that.
    """
    if data.startswith(b"{"):
        choice = _json(data)["choices"][0]
        return ChatAnswer(choice["message"]["content"] or "", choice["finish_reason"])
    text = reason = ""
    blocks = data.split(b"\n\n")
    for block in blocks[:-1]:
        if block == b"data: [DONE]":
            return ChatAnswer(text, reason)
        chunk = _json(block.removeprefix(b"data: "))
        if "error" in chunk:
            raise InvalidResponse(f"the stream failed: {chunk['message']}")
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
    if not truncated:
        raise InvalidResponse(f"the stream ended without [DONE]: …{data[-200:]!r}")
    return ChatAnswer(text)


def parse_embeddings(data: bytes) -> Embeddings:
    """Parse embeddings, as floats or as base64. Raises `InvalidResponse`, also if an embedding is not of length 1."""
    rows = np.stack([_row(entry["embedding"]) for entry in _json(data)["data"]])
    if not np.isfinite(rows).all() or not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
        raise InvalidResponse("an embedding is not of length 1")
    return Embeddings(rows)


def parse_images(data: bytes, size: tuple[int, int], number: int) -> Images:
    """Parse `number` PNG files of `size` (width, height), from JSON or from server-sent events.

    Raises `InvalidResponse`.
    """
    if data.startswith((b"data:", b"event:")):
        encoded = _completed_images(data)
    else:
        encoded = [entry["b64_json"] for entry in _json(data)["data"]]
    if len(encoded) != number:
        raise InvalidResponse(f"{len(encoded)} images, {number} were requested")
    return Images(tuple(_pixels(_decoded(text), size) for text in encoded))


def parse_image_file(data: bytes, size: tuple[int, int]) -> Images:
    """Parse one PNG file of `size` (width, height). Raises `InvalidResponse`."""
    return Images((_pixels(data, size),))


def matches_schema(schema: dict[str, Any]) -> Callable[[ChatAnswer], str]:
    """Return a function that checks an answer against a JSON schema and returns the violation, "" if there is none.

    The function accepts answers that did not end by themselves (`stop`), because they may be incomplete.
    """

    def check(answer: ChatAnswer) -> str:
        if answer.finish_reason != "stop":
            return ""
        try:
            jsonschema.validate(json.loads(answer.text), schema)
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{answer.text!r} violates its schema: {str(error)[:200]}"
        return ""

    return check


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise InvalidResponse(f"invalid JSON: {data[:200]!r}") from None


def _row(value: list[float] | str) -> Any:
    if isinstance(value, str):
        return np.frombuffer(_decoded(value), "<f4")
    return np.asarray(value, np.float32)


def _decoded(text: str) -> bytes:
    """Decode base64 or a data URL."""
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except binascii.Error as error:
        raise InvalidResponse(f"invalid base64: {error}") from None


def _completed_images(data: bytes) -> list[str]:
    """Return the base64 of the completed images of a stream, in the order of their indexes."""
    encoded: dict[int, str] = {}
    blocks = data.split(b"\n\n")
    if blocks[-2:] != [b"data: [DONE]", b""]:
        raise InvalidResponse(f"the stream ended without [DONE]: …{data[-200:]!r}")
    for block in blocks[:-2]:
        event = _json(block.partition(b"data: ")[2])
        if "error" in event:
            raise InvalidResponse(f"the stream failed: {event['message']}")
        if event["type"].endswith(".completed"):
            encoded[event.get("index", len(encoded))] = event["b64_json"]
    return [encoded[index] for index in sorted(encoded)]


def _pixels(data: bytes, size: tuple[int, int]) -> Any:
    if not data.endswith(_PNG_END):
        raise InvalidResponse(f"not a PNG file, or a truncated one: {data[:20]!r}…")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidResponse(f"not an image: {error}") from None
    if (image.format, image.size) != ("PNG", size):
        raise InvalidResponse(f"{image.format} of {image.size}, a PNG of {size} was requested")
    return np.asarray(image.convert("RGB"))
