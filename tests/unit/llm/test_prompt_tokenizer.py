"""Tokenization of prompts: texts that cannot fit, and the beginning-of-sequence token."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.serving.errors import Cancelled, ContextLengthExceeded
from backends.serving.prompt_length import _slices, max_token_bytes


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer):
        self._tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts, **options):
        self.characters += sum(map(len, texts))
        return self._tokenizer.encode_batch_fast(texts, **options)


def words(normalizer=None):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizer
    return Counting(tokenizer)


def prompts(tokenizer, context_length=1000):
    return PromptTokenizer(tokenizer, bos=None, vocab_size=259, context_length=context_length)


def test_text_that_cannot_fit_is_refused_untokenized_with_both_numbers(tokenizer):
    counting = Counting(tokenizer)
    with pytest.raises(ContextLengthExceeded, match=r"at least 1000 tokens; .* room for 1000, one of them"):
        prompts(counting).encode(b"x" * 6994)  # the longest token, <|end|>, has 7 bytes
    assert counting.characters == 0
    with pytest.raises(ContextLengthExceeded, match=r"has 6993 tokens; .* room for 1000"):
        prompts(counting).encode(b"x" * 6993)


@pytest.mark.parametrize("bos", ["<s>", None])
@pytest.mark.parametrize("put", ["<s>", "<|end|> <s>"])
def test_special_token_that_the_tokenizer_adds_is_not_added_twice(tokenizer, bos, put):
    """This holds whether or not the checkpoint's configuration names the token."""
    adding = Tokenizer.from_str(tokenizer.to_str())
    tokens = [(token, adding.token_to_id(token)) for token in put.split()]
    adding.post_processor = processors.TemplateProcessing(single=f"{put} $A", special_tokens=tokens)
    prompt_tokenizer = PromptTokenizer(adding, bos=bos, vocab_size=259, context_length=1000)
    bos_ids, text = [number for _, number in tokens], tokenizer.encode("a<s>").ids
    assert prompt_tokenizer.encode(b"a<s>").tolist() == [*bos_ids, *text]
    written = "".join(put.split()).encode()
    assert prompt_tokenizer.encode(written + b"a<s>").tolist() == [*bos_ids, *text]
    assert prompt_tokenizer.encode(written + b"a<s>", spans=((len(written), len(written) + 1),)).tolist() == [
        *bos_ids,
        *text,
    ]
    # In a literal span, the caller's text is plain text.
    assert prompt_tokenizer.encode(written + b"a<s>", spans=((0, len(written)),)).tolist()[: len(bos_ids)] == bos_ids
    assert (
        len(prompt_tokenizer.encode(written + b"a<s>", spans=((0, len(written)),))) == len(bos_ids) + len(written) + 2
    )


def test_tokenizer_that_adds_nothing_keeps_a_written_bos(tokenizer):
    assert PromptTokenizer(tokenizer, bos="<s>", vocab_size=259, context_length=1000).encode(b"<s>a").tolist() == [
        *tokenizer.encode("<s>a").ids
    ]


def test_special_tokens_that_just_fit_are_not_refused(tokenizer):
    assert len(prompts(tokenizer).encode(b"<|end|>" * 999)) == 999


def test_counting_stops_early_without_a_bound_from_bytes():
    counting = words()
    with pytest.raises(ContextLengthExceeded, match=r"at least \d+ tokens; .* room for 1000"):
        prompts(counting).encode(b"word " * 2_000_000)
    assert counting.characters <= 65_536


def test_long_text_with_few_tokens_is_accepted():
    assert len(prompts(words()).encode(b"word " + b" " * 500_000 + b"y" * 500_000)) == 2


def test_cancellation_is_noticed_between_slices():
    counting, calls = words(), []
    with pytest.raises(Cancelled):
        prompts(counting).encode(b" " * 1_000_000, lambda: calls.append(1) or len(calls) > 3)
    assert 0 < counting.characters <= 3 * 65_536


def test_token_bound_needs_a_tokenizer_that_keeps_every_byte(tokenizer):
    assert max_token_bytes(tokenizer) == 7
    assert max_token_bytes(words()._tokenizer) is None
    shrinking = Tokenizer.from_str(tokenizer.to_str())
    shrinking.normalizer = normalizers.Strip()
    assert max_token_bytes(shrinking) is None
    greedy = Tokenizer.from_str(tokenizer.to_str())
    greedy.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert max_token_bytes(greedy) is None


@pytest.mark.parametrize("text", ["word " * 50_000, "x" * 200_000, "\n" * 70_000, "", "ab", "é " + "y" * 65_534])
def test_slices_contain_the_whole_text(text):
    parts = list(_slices(text))
    assert "".join(parts) == text and all(0 < len(part) <= 65_536 for part in parts)
