"""A T5 tokenizer that has one token for every word of the prompts, and splits other words into letters and bytes."""

import string
from pathlib import Path
from typing import Any

from training.moving_shapes.prompts import vocabulary

MAX_PROMPT_TOKENS = 32
"""Tokens of a prompt, with its end token. Longer prompts are truncated."""

SPECIAL_PIECES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
"""The first three pieces, in the order of their ids."""

WORD_SCORE, LETTER_SCORE = -1.0, -10.0
"""Log-probabilities of the pieces: a word is always likelier than its letters."""


def make_tokenizer(folder: Path) -> Any:
    """Write the tokenizer to `folder`, and return it as transformers' fast tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [(piece, 0.0) for piece in SPECIAL_PIECES.values()]
    pieces += [(f"<0x{byte:02X}>", LETTER_SCORE) for byte in range(256)]
    pieces += [(f"▁{word}", WORD_SCORE) for word in vocabulary()]
    pieces += [(letter, LETTER_SCORE) for letter in ("▁", *string.ascii_lowercase, *string.digits)]
    pieces += [(mark, WORD_SCORE) for mark in ".,!?:;'-"]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    unigram.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    unigram.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=unigram,
        model_max_length=MAX_PROMPT_TOKENS,
        **SPECIAL_PIECES,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def tokenize(tokenizer: Any, texts: list[str], length: int = MAX_PROMPT_TOKENS) -> tuple[Any, Any]:
    """Return token ids and attention mask, int64 [texts, length], padded and truncated."""
    encoded = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask
