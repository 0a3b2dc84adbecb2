"""A CLIP tokenizer that has one token for every word of the scenes, and splits other words into bytes."""

import json
from pathlib import Path
from typing import Any

from training.shapes.scenes import vocabulary

MAX_PROMPT_TOKENS = 32
"""Tokens of a prompt, with its start and end tokens. Longer prompts are truncated."""


def make_tokenizer(folder: Path) -> Any:
    """Train the merges, write the tokenizer to `folder`, and return it as a transformers `CLIPTokenizer`."""
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
        # The trainer assigns ids in the order of a hash table, which differs in each run, and merges equally frequent
        # pairs in the order of these ids. Assigning ids to all symbols in advance makes the result reproducible.
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
    vocabulary_ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary_ids, merges=merges, model_max_length=MAX_PROMPT_TOKENS)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes only tokenizer.json; other readers of CLIP tokenizers need these two files.
    (folder / "vocab.json").write_text(json.dumps(vocabulary_ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer


def tokenize(tokenizer: Any, texts: list[str]) -> Any:
    """Return token ids, int64 [texts, MAX_PROMPT_TOKENS], padded and truncated."""
    return tokenizer(
        texts, padding="max_length", max_length=MAX_PROMPT_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
