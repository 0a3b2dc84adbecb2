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


def tokenizer() -> LLTokenizer:
    special = ["<s>", "</s>", "<|end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate([*special, *alphabet, *_TEXTS])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return LLTokenizer(made.to_str(), n_vocab=len(vocabulary), eos_token=[1])


@pytest.fixture(scope="module")
def of_keys() -> tuple[LLTokenizer, QuoteTokens]:
    made = tokenizer()
    return made, QuoteTokens(made)


def test_no_key_is_repeated(of_keys: tuple[LLTokenizer, QuoteTokens]) -> None:
    made, words = of_keys
    schema = {"additionalProperties": {"anyOf": [{"type": "integer", "maximum": 9, "minimum": 0}, {"$ref": "#"},
                                                 {"type": "string", "pattern": r"^[\"ab,\\]{0,2}$"}]},
              "propertyNames": {"pattern": r"^[ab\"\\]{0,60}$"}, "type": "object"}  # fmt: skip
    first = LLMatcher(made, to_llguidance("json", json.dumps(schema)), log_level=0)
    assert not first.is_error(), first.get_error()
    rng = random.Random(1)
    withheld, sizes = 0, [0]

    def objects(pairs: list[tuple[str, object]]) -> dict[str, object]:
        sizes.append(len(pairs))
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    for _ in range(150):
        state, keys, text = first.deep_copy(), UniqueKeyTracker(made, words), b""
        while not state.is_stopped() and len(text) < 300:
            mask = state.compute_bitmask()
            left = keys.without_duplicates(mask)
            withheld += left != mask
            allowed = np.flatnonzero(np.unpackbits(np.frombuffer(left, np.uint8), bitorder="little")).tolist()
            closing = [token for token in allowed if made.decode_bytes([token]) == b"}"]
            if 1 in allowed:
                break
            token = closing[0] if closing and (len(text) > 200 or rng.random() < 0.05) else rng.choice(allowed)
            assert state.consume_token(token)
            keys.consume(token)
            text += made.decode_bytes([token])
        if len(text) < 300:
            json.loads(text, object_pairs_hook=objects)
    assert withheld > 100 and max(sizes) > 4


def test_key_may_repeat_if_nothing_else_is_left(of_keys: tuple[LLTokenizer, QuoteTokens]) -> None:
    made, words = of_keys
    keys, said = UniqueKeyTracker(made, words), made.tokenize_str('{"a":1,"a')
    for token in said:
        keys.consume(token)
    quote = made.tokenize_str('"')[0]
    only = bytearray(len(made.tokenize_str("")) + (made.vocab_size + 7) // 8)
    only[quote >> 3] |= 1 << (quote & 7)
    assert keys.without_duplicates(bytes(only)) == bytes(only)
    only[0] |= 8  # something else
    assert keys.without_duplicates(bytes(only))[quote >> 3] >> (quote & 7) & 1 == 0


def test_tracking_many_keys_takes_little_time(of_keys: tuple[LLTokenizer, QuoteTokens]) -> None:
    made, words = of_keys
    keys, mask = UniqueKeyTracker(made, words), b"\xff" * ((made.vocab_size + 7) // 8)
    tokens = made.tokenize_str("{" + ",".join(f'"key{number}":{{"x":"y"}}' for number in range(500)))
    started = time.thread_time()
    for token in tokens:
        keys.consume(token)
        keys.without_duplicates(mask)
    assert (time.thread_time() - started) / len(tokens) < 0.002


def test_thousands_of_keys_take_no_longer_than_a_few(of_keys: tuple[LLTokenizer, QuoteTokens]) -> None:
    made, words = of_keys
    keys, mask = UniqueKeyTracker(made, words), b"\xff" * ((made.vocab_size + 7) // 8)
    for token in made.tokenize_str("{" + "".join(f'"key{number}":1,' for number in range(20_000))):
        keys.consume(token)
    for text in ('"', "key1"):
        for token in made.tokenize_str(text):
            keys.consume(token)
        started = time.thread_time()
        left = [keys.without_duplicates(mask) for _ in range(10)]
        assert (time.thread_time() - started) / len(left) < 0.002
    quote = made.tokenize_str('"')[0]
    assert not left[0][quote >> 3] >> (quote & 7) & 1


def test_key_may_repeat_in_another_object_within_one_token(of_keys: tuple[LLTokenizer, QuoteTokens]) -> None:
    made, words = of_keys
    keys = UniqueKeyTracker(made, words)
    for token in made.tokenize_str("[{"):
        keys.consume(token)
    once = (b'"a":1,"b":1', b'"a":{"a":1},"b":{"a":1', b'"a":1},{"a":1')
    again = (b'"a":1,"a":1', b'"a":{"b":{}},"a":1', b'"a":1},{"b":1,"b":')
    assert [keys._is_duplicate(text) for text in (*once, *again)] == [False] * 3 + [True] * 3
