"""The requests that perf_analyzer sends to each type of model, on this machine or on any other server.

A profile is a folder: `data.json` has the requests, and `arguments` the options of perf_analyzer. The requests name
tensors and suit any model of the type: texts are plain, without a chat template or token ids.
`python -m benchmarks.profiles` writes the requests again.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.embeddings import make_texts

HERE = Path(__file__).parent
BOOK = HERE.parent / "data" / "alice.txt"
NEW_TOKENS = 64

Request = dict[str, Any]
"""The values of each tensor, by name. `{"content": [...], "shape": [...]}` if the model does not fix the shape."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Requests, and the arguments of perf_analyzer that send them."""

    name: str
    requests: tuple[Request, ...]
    arguments: tuple[str, ...]


def load(name: str) -> Profile:
    """Read a profile from its folder. Raises `FileNotFoundError` for an unknown name."""
    folder = HERE / name
    requests = json.loads((folder / "data.json").read_text(encoding="utf-8"))["data"]
    return Profile(name, tuple(requests), tuple((folder / "arguments").read_text().split()))


def passages(count: int, words: int, seed: int) -> list[str]:
    """Return `count` passages of a book of `words` words each. Each starts at another word."""
    rng, book = random.Random(seed), BOOK.read_text(encoding="utf-8").split()
    return [" ".join(book[start : start + words]) for start in rng.sample(range(0, len(book) - words, 3), count)]


def chat() -> list[Request]:
    """Return 400 requests to continue a passage of 64 words: greedy, 64 tokens, past the end of the text."""
    sampling = {"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    return [
        {"text_input": [text], "stream": [True], "sampling_parameters": [json.dumps(sampling)]}
        for text in passages(400, 64, seed=1)
    ]


def chat_tensorrt_llm() -> list[Request]:
    """Return the same requests for NVIDIA's `tensorrt_llm_bls` and `ensemble`. They may end an answer earlier."""
    return [
        {"text_input": [text], "stream": [True], "max_tokens": [NEW_TOKENS], "top_k": [1]}
        for text in passages(400, 64, seed=1)
    ]


def chat_llmapi() -> list[Request]:
    """Return the same requests for NVIDIA's `llmapi/tensorrt_llm`. It may end an answer earlier."""
    return [
        {
            "text_input": {"content": [text], "shape": [1]},
            "streaming": [True],
            "sampling_param_max_tokens": [NEW_TOKENS],
            "sampling_param_top_k": [1],
        }
        for text in passages(400, 64, seed=1)
    ]


def embedding() -> list[Request]:
    """Return 512 requests with one text each: 3 to 140 words, half of them shorter than 25."""
    return [{"text": {"content": [text], "shape": [1]}} for text in make_texts(512, seed=2)]


def image() -> list[Request]:
    """Return 64 requests for an image of 20 steps in the model's own size, each with its own seed."""
    sizes, colours = ("large", "small"), ("red", "green", "blue", "yellow")
    shapes = ("star", "circle", "square", "ring")
    prompts = [f"a {size} {colour} {shape}" for size in sizes for colour in colours for shape in shapes] * 2
    return [{"prompt": [prompt], "steps": [20], "seed": [seed]} for seed, prompt in enumerate(prompts)]


PROFILES = {
    "chat": chat,
    "chat-tensorrt-llm": chat_tensorrt_llm,
    "chat-llmapi": chat_llmapi,
    "embedding": embedding,
    "image": image,
}


def render(name: str) -> str:
    """Return the content of a profile's `data.json`, with one request per line."""
    lines = ",\n".join(json.dumps(request, ensure_ascii=False) for request in PROFILES[name]())
    return f'{{"data": [\n{lines}\n]}}\n'
