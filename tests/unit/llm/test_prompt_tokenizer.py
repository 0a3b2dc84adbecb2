"""Tokenization of prompts: texts that cannot fit, and the beginning-of-sequence token."""

import itertools

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.serving.errors import Cancelled, ContextLengthExceeded
from backends.serving.prompt_length import _slices, max_token_bytes


class CountingTokenizer:
    """A tokenizer that counts the characters that it tokenizes."""

    def __init__(self, tokenizer):
        self._tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts, **options):
        self.characters += sum(map(len, texts))
        return self._tokenizer.encode_batch_fast(texts, **options)


def word_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return CountingTokenizer(tokenizer)


def prompt_tokenizer(tokenizer, bos=None):
    return PromptTokenizer(tokenizer, bos=bos, vocab_size=259, context_length=1000)


def test_text_that_cannot_fit_is_refused_untokenized_with_both_numbers(tokenizer):
    counting = CountingTokenizer(tokenizer)
    with pytest.raises(ContextLengthExceeded, match=r"at least 1000 tokens; .* room for 1000, one of them"):
        prompt_tokenizer(counting).encode(b"x" * 6994)  # the longest token, <|end|>, has 7 bytes
    assert counting.characters == 0
    with pytest.raises(ContextLengthExceeded, match=r"has 6993 tokens; .* room for 1000"):
        prompt_tokenizer(counting).encode(b"x" * 6993)


@pytest.mark.parametrize("bos", ["<s>", None])
@pytest.mark.parametrize("added", ["<s>", "<|end|> <s>"])
def test_special_token_that_the_tokenizer_adds_is_not_added_twice(tokenizer, bos, added):
    """This holds whether or not the checkpoint's configuration names the token."""
    adding = Tokenizer.from_str(tokenizer.to_str())
    tokens = [(token, adding.token_to_id(token)) for token in added.split()]
    adding.post_processor = processors.TemplateProcessing(single=f"{added} $A", special_tokens=tokens)
    encode = prompt_tokenizer(adding, bos).encode
    added_ids, text_ids = [number for _, number in tokens], tokenizer.encode("a<s>").ids
    assert encode(b"a<s>").tolist() == [*added_ids, *text_ids]
    written = "".join(added.split()).encode()
    assert encode(written + b"a<s>").tolist() == [*added_ids, *text_ids]
    spans = ((len(written), len(written) + 1),)
    assert encode(written + b"a<s>", spans=spans).tolist() == [*added_ids, *text_ids]
    # In a literal span, the caller's text is plain text.
    literal = encode(written + b"a<s>", spans=((0, len(written)),)).tolist()
    assert literal[: len(added_ids)] == added_ids
    assert len(literal) == len(added_ids) + len(written) + 2


def test_tokenizer_that_adds_nothing_keeps_a_written_bos(tokenizer):
    assert prompt_tokenizer(tokenizer, "<s>").encode(b"<s>a").tolist() == tokenizer.encode("<s>a").ids


def test_special_tokens_that_just_fit_are_not_refused(tokenizer):
    assert len(prompt_tokenizer(tokenizer).encode(b"<|end|>" * 999)) == 999


def test_counting_stops_early_without_a_bound_from_bytes():
    counting = word_tokenizer()
    with pytest.raises(ContextLengthExceeded, match=r"at least \d+ tokens; .* room for 1000"):
        prompt_tokenizer(counting).encode(b"word " * 2_000_000)
    assert counting.characters <= 65_536


def test_long_text_with_few_tokens_is_accepted():
    assert len(prompt_tokenizer(word_tokenizer()).encode(b"word " + b" " * 500_000 + b"y" * 500_000)) == 2


def test_cancellation_is_noticed_between_slices():
    counting, calls = word_tokenizer(), itertools.count(1)
    with pytest.raises(Cancelled):
        prompt_tokenizer(counting).encode(b" " * 1_000_000, lambda: next(calls) > 3)
    assert 0 < counting.characters <= 3 * 65_536


def test_token_bound_needs_a_tokenizer_that_keeps_every_byte(tokenizer):
    assert max_token_bytes(tokenizer) == 7
    assert max_token_bytes(word_tokenizer()._tokenizer) is None
    shrinking = Tokenizer.from_str(tokenizer.to_str())
    shrinking.normalizer = normalizers.Strip()
    assert max_token_bytes(shrinking) is None
    stripping = Tokenizer.from_str(tokenizer.to_str())
    stripping.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert max_token_bytes(stripping) is None


@pytest.mark.parametrize("text", ["word " * 50_000, "x" * 200_000, "\n" * 70_000, "", "ab", "é " + "y" * 65_534])
def test_slices_contain_the_whole_text(text):
    parts = list(_slices(text))
    assert "".join(parts) == text and all(0 < len(part) <= 65_536 for part in parts)
