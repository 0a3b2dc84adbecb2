"""Keys of objects are unique, also in objects that may have any members."""

import json
import random
import time

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.llm.structured_outputs.llguidance_grammar import to_llguidance
from backends.llm.structured_outputs.unique_keys import QuoteTokens, UniqueKeyTracker

# A vocabulary with tokens in which a key ends in the middle, and tokens that contain a whole key.
_TEXTS = ['a"', '":', '"a"', ',"a":', '1,"a":1', '},"a"', '"b":{"a"', "ab", 'b":1', '"ab', '\\"', '\\\\"', '","', '":"']


def make_tokenizer() -> LLTokenizer:
    special = ["<s>", "</s>", "<|end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate([*special, *alphabet, *_TEXTS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return LLTokenizer(tokenizer.to_str(), n_vocab=len(vocabulary), eos_token=[1])


@pytest.fixture(scope="module")
def key_tokenizer() -> tuple[LLTokenizer, QuoteTokens]:
    tokenizer = make_tokenizer()
    return tokenizer, QuoteTokens(tokenizer)


def test_no_key_is_repeated(key_tokenizer: tuple[LLTokenizer, QuoteTokens]) -> None:
    tokenizer, quote_tokens = key_tokenizer
    schema = {"additionalProperties": {"anyOf": [{"type": "integer", "maximum": 9, "minimum": 0}, {"$ref": "#"},
                                                 {"type": "string", "pattern": r"^[\"ab,\\]{0,2}$"}]},
              "propertyNames": {"pattern": r"^[ab\"\\]{0,60}$"}, "type": "object"}  # fmt: skip
    initial_matcher = LLMatcher(tokenizer, to_llguidance("json", json.dumps(schema)), log_level=0)
    assert not initial_matcher.is_error(), initial_matcher.get_error()
    rng = random.Random(1)
    num_changed_masks, sizes = 0, [0]

    def unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        sizes.append(len(pairs))
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    for _ in range(150):
        state, keys, text = initial_matcher.deep_copy(), UniqueKeyTracker(tokenizer, quote_tokens), b""
        while not state.is_stopped() and len(text) < 300:
            mask = state.compute_bitmask()
            unique_mask = keys.without_duplicates(mask)
            num_changed_masks += unique_mask != mask
            allowed = np.flatnonzero(np.unpackbits(np.frombuffer(unique_mask, np.uint8), bitorder="little")).tolist()
            closing = [token for token in allowed if tokenizer.decode_bytes([token]) == b"}"]
            if 1 in allowed:
                break
            token = closing[0] if closing and (len(text) > 200 or rng.random() < 0.05) else rng.choice(allowed)
            assert state.consume_token(token)
            keys.consume(token)
            text += tokenizer.decode_bytes([token])
        if len(text) < 300:
            json.loads(text, object_pairs_hook=unique_members)
    assert num_changed_masks > 100 and max(sizes) > 4


def test_key_may_repeat_if_nothing_else_is_left(key_tokenizer: tuple[LLTokenizer, QuoteTokens]) -> None:
    tokenizer, quote_tokens = key_tokenizer
    keys = UniqueKeyTracker(tokenizer, quote_tokens)
    for token in tokenizer.tokenize_str('{"a":1,"a'):
        keys.consume(token)
    quote = tokenizer.tokenize_str('"')[0]
    mask = bytearray(len(tokenizer.tokenize_str("")) + (tokenizer.vocab_size + 7) // 8)
    mask[quote >> 3] |= 1 << (quote & 7)
    assert keys.without_duplicates(bytes(mask)) == bytes(mask)
    mask[0] |= 8  # another token
    assert keys.without_duplicates(bytes(mask))[quote >> 3] >> (quote & 7) & 1 == 0


def test_tracking_many_keys_takes_little_processor_time(key_tokenizer: tuple[LLTokenizer, QuoteTokens]) -> None:
    tokenizer, quote_tokens = key_tokenizer
    keys, mask = UniqueKeyTracker(tokenizer, quote_tokens), b"\xff" * ((tokenizer.vocab_size + 7) // 8)
    tokens = tokenizer.tokenize_str("{" + ",".join(f'"key{number}":{{"x":"y"}}' for number in range(500)))
    started = time.thread_time()
    for token in tokens:
        keys.consume(token)
        keys.without_duplicates(mask)
    assert (time.thread_time() - started) / len(tokens) < 0.002


def test_thousands_of_keys_take_no_longer_than_a_few(key_tokenizer: tuple[LLTokenizer, QuoteTokens]) -> None:
    tokenizer, quote_tokens = key_tokenizer
    keys, mask = UniqueKeyTracker(tokenizer, quote_tokens), b"\xff" * ((tokenizer.vocab_size + 7) // 8)
    for token in tokenizer.tokenize_str("{" + "".join(f'"key{number}":1,' for number in range(20_000))):
        keys.consume(token)
    for text in ('"', "key1"):
        for token in tokenizer.tokenize_str(text):
            keys.consume(token)
        started = time.thread_time()
        masks = [keys.without_duplicates(mask) for _ in range(10)]
        assert (time.thread_time() - started) / len(masks) < 0.002
    quote = tokenizer.tokenize_str('"')[0]
    assert not masks[0][quote >> 3] >> (quote & 7) & 1


def test_key_may_repeat_in_another_object_within_one_token(key_tokenizer: tuple[LLTokenizer, QuoteTokens]) -> None:
    tokenizer, quote_tokens = key_tokenizer
    keys = UniqueKeyTracker(tokenizer, quote_tokens)
    for token in tokenizer.tokenize_str("[{"):
        keys.consume(token)
    unique = (b'"a":1,"b":1', b'"a":{"a":1},"b":{"a":1', b'"a":1},{"a":1')
    repeated = (b'"a":1,"a":1', b'"a":{"b":{}},"a":1', b'"a":1},{"b":1,"b":')
    assert [keys._is_duplicate(text) for text in (*unique, *repeated)] == [False] * 3 + [True] * 3
