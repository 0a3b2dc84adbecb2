"""A cut of SmolLM2's tokenizer: its most frequent merges, and those of every word of the conversations.

SmolLM2's vocabulary of 49,152 tokens would be most of a small model. A merge that is left out cannot come before one
that is kept in a word of the conversations, so those words have the same tokens as in SmolLM2's tokenizer; other words
have more and shorter ones, down to single bytes.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MERGES = Path(__file__).with_name("merges.txt")
"""The kept merges in their order. Source: SmolLM2-135M-Instruct, Apache-2.0. `cut_merges` makes the list."""

NUM_FREQUENT_MERGES = 1_500

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
"""Tokens of SmolLM2, with the ids 0, 1 and 2 as there: padding, and the marks of a turn's start and end."""

GLOBAL, FAKE, IMAGE = "<global-img>", "<fake_token_around_image>", "<image>"
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
"""Tokens that processors of the family write around an image and its tiles."""

END_OF_UTTERANCE = "<end_of_utterance>"
"""A token that the model never says; the family's processors would add it to a tokenizer without it."""

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""SmolLM2's chat template with images, and without a system prompt of its own."""

Merge = tuple[str, str]


def make_tokenizer(merges: Iterable[Merge] | None = None) -> Any:
    """Return the `tokenizers.Tokenizer` with these merges, by default those of `MERGES`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kept = read_merges() if merges is None else list(merges)
    tokens = [PAD, START, END, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in kept)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=kept))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [PAD, START, END, GLOBAL, *TILES, FAKE, IMAGE, END_OF_UTTERANCE]
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return tokenizer


def write_tokenizer(tokenizer: Any, folder: Path, max_tokens: int) -> None:
    """Write the files of the tokenizer that transformers reads, and the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_tokens,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def read_merges(file: Path = MERGES) -> list[Merge]:
    """Return the merges of a file: a line for each, after a line of comment."""
    lines = [line.split(" ") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    return [(first, second) for first, second in lines]


def write_merges(merges: Iterable[Merge], file: Path = MERGES) -> None:
    """Write the file that `read_merges` reads."""
    lines = ["#version: 0.2 - merges of SmolLM2's tokenizer (Apache-2.0)", *(" ".join(merge) for merge in merges)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cut_merges(tokenizer: Any, texts: Iterable[str], frequent: int = NUM_FREQUENT_MERGES) -> list[Merge]:
    """Return the first `frequent` merges of a byte-level BPE tokenizer, and those that `texts` need, in their order."""
    merges = [(first, second) for first, second in json.loads(tokenizer.to_str())["model"]["merges"]]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    words = {word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    kept = set(range(min(frequent, len(merges)))).union(*(_ranks_in(word, ranks) for word in words))
    return [merges[rank] for rank in sorted(kept)]


def _ranks_in(word: str, ranks: dict[Merge, int]) -> set[int]:
    """Return the ranks of the merges that byte pair encoding does in a word."""
    symbols, done = list(word), set[int]()
    while True:
        pairs = [(ranks[pair], place) for place, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
        if not pairs:
            return done
        rank, place = min(pairs)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
        done.add(rank)
