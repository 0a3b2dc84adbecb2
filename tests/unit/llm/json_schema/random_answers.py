"""Random answers under a schema, as a model with random weights would generate them."""

import json
import random
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from backends.llm.structured_outputs.llguidance_grammar import to_llguidance
from tests.unit.llm.conftest import byte_tokenizer

_TOKENIZER = LLTokenizer(byte_tokenizer().to_str(), n_vocab=259, eos_token=[1, 2])
_ENDS = frozenset(_TOKENIZER.tokenize_str('"}]'))
_LONG = 400


def compile_schema(schema: Any) -> LLMatcher:
    matcher = LLMatcher(_TOKENIZER, to_llguidance("json", json.dumps(schema)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def accepts(schema: Any, text: str) -> bool:
    """Return whether `text` is a complete answer under a schema."""
    matcher, tokens = compile_schema(schema), _TOKENIZER.tokenize_str(text)
    if matcher.validate_tokens(tokens) < len(tokens):
        return False
    matcher.consume_tokens(tokens)
    return matcher.is_accepting()


def random_answer(matcher: LLMatcher, rng: random.Random) -> str:
    """Return a random answer. All bytes that may come next are equally likely, except those that close a value."""
    state = matcher.deep_copy()
    tokens: list[int] = []
    while not state.is_stopped():
        bits = np.frombuffer(state.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little", count=259)).tolist()
        assert allowed, "the answer can neither go on nor end"
        if 1 in allowed and (len(allowed) < 3 or rng.random() < 0.5 or len(tokens) > _LONG):
            break
        allowed = [token for token in allowed if token > 2]
        ends = [token for token in allowed if token in _ENDS]
        if ends and (rng.random() < 0.4 or len(tokens) > _LONG):
            allowed = ends
        token = rng.choice(allowed)
        assert state.consume_token(token)
        tokens.append(token)
        assert len(tokens) < 20 * _LONG
    return _TOKENIZER.decode_bytes(tokens).decode(errors="replace")
