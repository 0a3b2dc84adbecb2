"""Parses answers, so that they can be compared with the answers to the same requests alone."""

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
"""Most by which a number of an embedding may differ: other texts share its batch."""
MAX_PIXEL_DIFFERENCE = 2
"""Most by which a pixel may differ, of 255: other images share its runs."""
_END = b"IEND\xaeB`\x82"
"""The last bytes of every PNG file. Pillow opens a file without them, too."""


class InvalidResponse(Exception):
    """An answer is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A chat answer. `finish_reason` is empty if the answer was truncated."""

    text: str
    finish_reason: str = ""

    def difference(self, alone: "ChatAnswer") -> str:
        """Return the difference from the baseline; "" if none. A truncated answer must be a prefix of the baseline."""
        if not self.finish_reason:
            return "" if alone.text.startswith(self.text) else f"said {self.text!r}, alone {alone.text!r}"
        return "" if self == alone else f"said {self}, alone {alone}"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings, a row for each text."""

    rows: Any

    def difference(self, alone: "Embeddings") -> str:
        """Return the difference from the baseline; "" if none."""
        if self.rows.shape != alone.rows.shape:
            return f"{self.rows.shape} numbers, alone {alone.rows.shape}"
        most = float(np.abs(self.rows - alone.rows).max())
        return "" if most <= MAX_NUMBER_DIFFERENCE else f"a number differs by {most:.2g}"


@dataclass(frozen=True, slots=True)
class Images:
    """Images as arrays of pixels."""

    pictures: tuple[Any, ...]

    def difference(self, alone: "Images") -> str:
        """Why these are not the pictures that were drawn alone."""
        if [each.shape for each in self.pictures] != [each.shape for each in alone.pictures]:
            return f"{[each.shape for each in self.pictures]}, alone {[each.shape for each in alone.pictures]}"
        pairs = zip(self.pictures, alone.pictures, strict=True)
        most = max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs)
        return "" if most <= MAX_PIXEL_DIFFERENCE else f"a pixel differs by {most} of 255"


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
    """Read embeddings, in either format. Raises `Unreadable`."""
    rows = [_row(each["embedding"]) for each in _json(data)["data"]]
    found = np.stack(rows)
    if not np.isfinite(found).all() or not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3):
        raise InvalidResponse("a row is not of length 1")
    return Embeddings(found)


def parse_images(data: bytes, size: tuple[int, int], number: int) -> Images:
    """Read so many PNG files of a size (width, height), as JSON or as events. Raises `Unreadable`."""
    if data.startswith((b"data:", b"event:")):
        found = _completed(data)
    else:
        found = [each["b64_json"] for each in _json(data)["data"]]
    if len(found) != number:
        raise InvalidResponse(f"{len(found)} pictures, {number} were asked for")
    return Images(tuple(_pixels(_decoded(each), size) for each in found))


def parse_image_file(data: bytes, size: tuple[int, int]) -> Images:
    """Read one PNG file. Raises `Unreadable`."""
    return Images((_pixels(data, size),))


def matches_schema(schema: dict[str, Any]) -> Callable[[ChatAnswer], str]:
    """What says why an answer that has ended by itself breaks its schema; nothing where it does not."""

    def check(said: ChatAnswer) -> str:
        if said.finish_reason != "stop":
            return ""
        try:
            jsonschema.validate(json.loads(said.text), schema)
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{said.text!r} breaks its schema: {str(error)[:200]}"
        return ""

    return check


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise InvalidResponse(f"no JSON: {data[:200]!r}") from None


def _row(value: list[float] | str) -> Any:
    if isinstance(value, str):
        return np.frombuffer(_decoded(value), "<f4")
    return np.asarray(value, np.float32)


def _decoded(text: str) -> bytes:
    """Base64, with or without the beginning of a data URL."""
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except binascii.Error as error:
        raise InvalidResponse(f"no base64: {error}") from None


def _completed(data: bytes) -> list[str]:
    """The pictures among the events of a stream, in their order."""
    found: dict[int, str] = {}
    blocks = data.split(b"\n\n")
    if blocks[-2:] != [b"data: [DONE]", b""]:
        raise InvalidResponse(f"the stream ended without [DONE]: …{data[-200:]!r}")
    for block in blocks[:-2]:
        event = _json(block.partition(b"data: ")[2])
        if "error" in event:
            raise InvalidResponse(f"the stream failed: {event['message']}")
        if event["type"].endswith(".completed"):
            found[event.get("index", len(found))] = event["b64_json"]
    return [found[number] for number in sorted(found)]


def _pixels(data: bytes, size: tuple[int, int]) -> Any:
    if not data.endswith(_END):
        raise InvalidResponse(f"no PNG, or one that breaks off: {data[:20]!r}…")
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidResponse(f"no picture: {error}") from None
    if (picture.format, picture.size) != ("PNG", size):
        raise InvalidResponse(f"{picture.format} of {picture.size}, a PNG of {size} was asked for")
    return np.asarray(picture.convert("RGB"))
