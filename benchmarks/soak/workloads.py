"""The valid requests of the soak: chats, embeddings, image generations, edits and tasks."""

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.models import CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL
from benchmarks.soak import responses

NUM_CHATS, NUM_TEXTS, NUM_IMAGES = 36, 16, 8
"""Number of different chats, embeddings and images. Each is sent many times."""
RESIZED_MODEL = "dall-e-3"
"""An alias of the image model. Under this name the gateway resizes images to sizes that the model lacks."""
SIZE = (128, 128)
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 4},
    {"type": "object", "properties": {"ok": {"type": "boolean"}, "why": {"type": "string", "maxLength": 40}},
     "required": ["ok", "why"], "additionalProperties": False},
]  # fmt: skip
COLOURS, SHAPES = ("red", "blue", "green", "yellow"), ("circle", "square", "star", "ring")


@dataclass(frozen=True, slots=True)
class Workload:
    """One request and the parser of its answer. The answer is the same each time."""

    name: str
    """The name of its row in the results."""
    path: str
    body: bytes
    read: Callable[[bytes], Any]
    """Parses the answer. Raises `responses.InvalidResponse`."""
    content_type: str = "application/json"
    check: Callable[[Any], str] = lambda answer: ""
    """Returns the problem of a parsed answer, "" if there is none. It does not compare with the baseline."""
    read_partial: Callable[[bytes], Any] | None = None
    """Parses the part of an answer that arrived before the client disconnected."""
    same_answer_as: int = -1
    """Index of the workload that has the same answer; below 0: none."""
    is_task: bool = False
    """True for a request that creates a task."""


def post(name: str, path: str, body: dict[str, Any], read: Callable[[bytes], Any], **options: Any) -> Workload:
    """Return a workload with a JSON body. `options` are the other fields of `Workload`."""
    return Workload(name, path, json.dumps(body).encode(), read, **options)


def make_workloads(words: Sequence[str], rng: random.Random) -> list[Workload]:
    """Return all workloads. `words` are the words of their texts, each with a leading space."""
    workloads: list[Workload] = []
    for number in range(NUM_CHATS):
        workloads += _chats(words, rng, number, len(workloads))
    for number in range(NUM_TEXTS):
        workloads += _embeddings(words, rng, number, len(workloads))
    for number in range(NUM_IMAGES):
        workloads += _images(rng, number, len(workloads))
    return workloads


def _chats(words: Sequence[str], rng: random.Random, number: int, first: int) -> list[Workload]:
    """Return one chat three times: streamed, whole, and streamed in the platform dialect.

    `first` is the index of the first of them among all workloads.
    """
    system = "".join(random.Random(number % 2).choices(words, k=(90, 300)[number % 2]))
    messages = [{"role": "user", "content": "".join(rng.choices(words, k=int(2 ** rng.uniform(1, 8))))}]
    if number % 3 == 0:  # several chats share a prefix
        messages.insert(0, {"role": "system", "content": system})
    body: dict[str, Any] = {"model": CHAT_MODEL, "messages": messages, "temperature": 0}
    body["max_tokens"] = int(2 ** rng.uniform(2, 6.5))
    name, check = "chat", lambda answer: ""
    if number % 4 == 0:
        schema = SCHEMAS[number // 4 % len(SCHEMAS)]
        body |= {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        name, check = "structured chat", responses.matches_schema(schema)
    elif number % 4 == 1:
        body |= {"repetition_penalty": 1.1, "stop": ["\n\n"]}
    elif number % 4 == 2:
        body |= {"logprobs": True, "top_logprobs": 20}
    read_partial = partial(responses.parse_chat, truncated=True)
    path = "/v1/chat/completions"
    return [
        post(
            f"{name}, streamed",
            path,
            {**body, "stream": True},
            responses.parse_chat,
            check=check,
            read_partial=read_partial,
        ),
        post(f"{name}, whole", path, body, responses.parse_chat, check=check, same_answer_as=first),
        post(
            f"{name}, platform",
            f"/tritonic{path}",
            {**body, "stream": True},
            responses.parse_chat,
            read_partial=read_partial,
            same_answer_as=first,
        ),
    ]


def _embeddings(words: Sequence[str], rng: random.Random, number: int, first: int) -> list[Workload]:
    """Return one batch of texts twice: with float and with base64 embeddings."""
    texts = ["".join(rng.choices(words, k=int(2 ** rng.uniform(1, 6)))).strip() for _ in range(2 ** (number % 5))]
    body = {"model": EMBEDDING_MODEL, "input": texts}
    encoded = {**body, "encoding_format": "base64"}
    return [
        post("embeddings, floats", "/v1/embeddings", body, responses.parse_embeddings),
        post("embeddings, base64", "/v1/embeddings", encoded, responses.parse_embeddings, same_answer_as=first),
    ]


def _images(rng: random.Random, number: int, first: int) -> list[Workload]:
    """Return image requests: whole, streamed, as a task, resized, and an edit, each with its seed."""
    prompt = f"a large {rng.choice(COLOURS)} {rng.choice(SHAPES)} on a white background"
    count, path = 1 + number % 3, "/v1/images/generations"
    body = {"model": IMAGE_MODEL, "prompt": prompt, "seed": number * 100, "steps": 8 + number, "n": count}
    whole = {**body, "response_format": "b64_json"}
    # Previews are not compared with a baseline.
    streamed = {**whole, "stream": True, "partial_images": number % 3}
    side = 64 + 32 * number
    resized = {**whole, "model": RESIZED_MODEL, "size": f"{2 * side}x{side}", "n": 1}
    fields = {"model": IMAGE_MODEL, "prompt": prompt, "seed": str(number), "strength": "0.5", "steps": "8"}
    form, content_type = multipart({**fields, "response_format": "b64_json"}, {"image": drawing(number)})
    read = partial(responses.parse_images, size=SIZE, number=count)
    return [
        post("images", path, whole, read),
        post("images, streamed", path, streamed, read, same_answer_as=first),
        post(
            "task",
            f"/tritonic{path}",
            {**body, "n": 1, "async": True},
            partial(responses.parse_image_file, size=SIZE),
            is_task=True,
        ),
        post("image, resized", path, resized, partial(responses.parse_images, size=(2 * side, side), number=1)),
        Workload("edit", "/v1/images/edits", form, partial(responses.parse_images, size=SIZE, number=1), content_type),
    ]


def drawing(number: int) -> bytes:
    """Return a PNG of the model's size, the input of an edit."""
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).ellipse((20 + number, 20, 90 + number, 90), COLOURS[number % len(COLOURS)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def multipart(fields: dict[str, str], files: dict[str, bytes]) -> tuple[bytes, str]:
    """Return a multipart form (RFC 7578) and its content type."""
    boundary = "soak-7e57ab1e"
    parts = [f'name="{name}"\r\n\r\n'.encode() + value.encode() for name, value in fields.items()]
    parts += [
        f'name="{name}"; filename="{name}.png"\r\nContent-Type: image/png\r\n\r\n'.encode() + data
        for name, data in files.items()
    ]
    written = b"".join(f"--{boundary}\r\nContent-Disposition: form-data; ".encode() + part + b"\r\n" for part in parts)
    return written + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
