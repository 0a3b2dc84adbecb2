"""A CLIP tokenizer in which every word of the scenes is one token, and other words fall apart into bytes."""

import json
from pathlib import Path
from typing import Any

from training.shapes.scenes import vocabulary

MAX_PROMPT_TOKENS = 32
"""Tokens of a prompt, the two marks at its ends included; longer ones are cut."""


def make_tokenizer(folder: Path) -> Any:
    """Train the merges, write the tokenizer to `folder` and give it as a transformers `CLIPTokenizer`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [f"{character}</w>" for character in alphabet]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        # The trainer numbers what it meets in the order of a hash table, another one each time, and pairs that are
        # equally frequent are merged in the order of those numbers: everything that it can meet has its number before.
        special_tokens=[*alphabet, *ends],
        show_progress=False,
    )
    bpe.train_from_iterator([word for word in vocabulary() for _ in range(2)], trainer)
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = dict.fromkeys(
        [
            *alphabet,
            *ends,
            *("".join(merge) for merge in merges),
            "<|startoftext|>",
            "<|endoftext|>",
        ]
    )
    numbered = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=numbered, merges=merges, model_max_length=MAX_PROMPT_TOKENS)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes tokenizer.json alone; these two are what every other reader of CLIP tokenizers knows.
    (folder / "vocab.json").write_text(json.dumps(numbered, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer


def tokenize(tokenizer: Any, texts: list[str]) -> Any:
    """Token numbers of the texts, int64 [texts, LENGTH], padded and cut."""
    return tokenizer(
        texts, padding="max_length", max_length=MAX_PROMPT_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
