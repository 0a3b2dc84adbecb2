"""What perf_analyzer asks each kind of model, here and on any other server.

A profile is a folder: `data.json`, the requests, and `arguments`, the options of perf_analyzer. They name tensors and
nothing of a model: texts are plain, without a chat template or token ids. `python -m benchmarks.profiles` writes the
requests again.
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
"""By tensor, its values; or `{"content": [...], "shape": [...]}` where the shape is not of the model's own."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is asked, and how."""

    name: str
    requests: tuple[Request, ...]
    arguments: tuple[str, ...]


def load(name: str) -> Profile:
    """Read a profile from its folder."""
    folder = HERE / name
    requests = json.loads((folder / "data.json").read_text(encoding="utf-8"))["data"]
    return Profile(name, tuple(requests), tuple((folder / "arguments").read_text().split()))


def passages(count: int, words: int, seed: int) -> list[str]:
    """Pieces of a book, each of so many words, which begin differently."""
    chance, book = random.Random(seed), BOOK.read_text(encoding="utf-8").split()
    return [" ".join(book[start : start + words]) for start in chance.sample(range(0, len(book) - words, 3), count)]


def chat() -> list[Request]:
    """400 passages of 64 words to go on with, greedy, 64 tokens each, also where the model would end earlier."""
    sampling = {"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    return [
        {"text_input": [text], "stream": [True], "sampling_parameters": [json.dumps(sampling)]}
        for text in passages(400, 64, seed=1)
    ]


def chat_tensorrt_llm() -> list[Request]:
    """The same for NVIDIA's `tensorrt_llm_bls` and `ensemble`, which may end an answer earlier."""
    return [
        {"text_input": [text], "stream": [True], "max_tokens": [NEW_TOKENS], "top_k": [1]}
        for text in passages(400, 64, seed=1)
    ]


def chat_llmapi() -> list[Request]:
    """The same for NVIDIA's `llmapi/tensorrt_llm`, which may end an answer earlier."""
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
    """512 pieces of the book, one a request: 3 to 140 words, half of them shorter than 25."""
    return [{"text": {"content": [text], "shape": [1]}} for text in make_texts(512, seed=2)]


def image() -> list[Request]:
    """64 pictures of 20 steps, in the model's own size; each has a seed of its own."""
    sizes, colours, forms = ("large", "small"), ("red", "green", "blue", "yellow"), ("star", "circle", "square", "ring")
    prompts = [f"a {size} {colour} {form}" for size in sizes for colour in colours for form in forms] * 2
    return [{"prompt": [prompt], "steps": [20], "seed": [seed]} for seed, prompt in enumerate(prompts)]


PROFILES = {
    "chat": chat,
    "chat-tensorrt-llm": chat_tensorrt_llm,
    "chat-llmapi": chat_llmapi,
    "embedding": embedding,
    "image": image,
}


def render(name: str) -> str:
    """The file of a profile's requests, a request a line."""
    lines = ",\n".join(json.dumps(request, ensure_ascii=False) for request in PROFILES[name]())
    return f'{{"data": [\n{lines}\n]}}\n'
