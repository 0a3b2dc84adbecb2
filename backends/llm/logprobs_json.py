"""The JSON of the tensor `logprobs`, in the form of Triton's vLLM backend, and sums of log probabilities."""

import json
from collections.abc import Sequence

from tokenizers import Tokenizer, pre_tokenizers

from backends.llm.engine import Logprob, Logprobs

_SENTENCEPIECE_SPACE = "\u2581"


class TokenBytes:
    """The bytes that each token stands for, with a cache. Any thread may read it.

    Two families of tokenizers have tokens that are not text: byte-level BPE writes each byte as one character of an
    alphabet of its own, and SentencePiece has tokens such as `<0x0A>` and a mark instead of a space. A special token
    stands for its name, although answers hide it by default.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = {number: str(token.content) for number, token in added.items()}
        self._special = frozenset(number for number, token in added.items() if token.special)
        decoder = str(tokenizer.decoder)
        self._alphabet = _byte_alphabet() if "ByteLevel" in decoder else None
        self._has_byte_fallback = "ByteFallback" in decoder
        self._uses_metaspace = "Metaspace" in decoder or _SENTENCEPIECE_SPACE in decoder
        self._cache: dict[int, bytes] = {}

    def __getitem__(self, token: int) -> bytes:
        if (known := self._cache.get(token)) is None:
            known = self._cache[token] = self._decode_token(token)
        return known

    def is_special(self, token: int) -> bool:
        """Return whether answers hide the token by default."""
        return token in self._special

    def _decode_token(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode("utf-8")
        name = self._tokenizer.id_to_token(token)
        if name is None:  # padding: the model's vocabulary is larger than the tokenizer's
            return b""
        if self._alphabet:
            if all(character in self._alphabet for character in name):
                return bytes(self._alphabet[character] for character in name)
        elif self._has_byte_fallback and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes.fromhex(name[3:5])
        elif self._uses_metaspace:
            name = name.replace(_SENTENCEPIECE_SPACE, " ")
        return str(name).encode("utf-8")


def render_logprobs(entries: Sequence[Logprobs], tokens: TokenBytes) -> bytes:
    """Return a JSON list in the form of Triton's vLLM backend: an object by token id for each position, the text's own
    token first.
    """
    return json.dumps([_token_entry(entry, tokens) for entry in entries], separators=(",", ":")).encode()


class CumulativeLogprobs:
    """The sum of the log probabilities of each answer's tokens so far."""

    def __init__(self, num_answers: int, num_prompt_entries: int) -> None:
        """The first `num_prompt_entries` entries of the first answer belong to the prompt, and are skipped."""
        self._sums = [0.0] * num_answers
        self._num_prompt_entries = num_prompt_entries

    def add(self, answers: Sequence[Sequence[Logprobs]]) -> tuple[float, ...]:
        """Add the new entries of each answer, and return all sums."""
        for index, entries in enumerate(answers):
            skipped = min(self._num_prompt_entries, len(entries)) if index == 0 else 0
            self._num_prompt_entries -= skipped
            self._sums[index] += sum(entry[0].logprob or 0.0 for entry in entries[skipped:])
        return tuple(self._sums)


def _token_entry(entry: Logprobs, tokens: TokenBytes) -> dict[str, object]:
    return {str(each.token): _logprob_entry(each, tokens) for each in entry}


def _logprob_entry(each: Logprob, tokens: TokenBytes) -> dict[str, object]:
    content = tokens[each.token]
    member: dict[str, object] = {
        "logprob": each.logprob,
        "rank": each.rank,
        "decoded_token": content.decode("utf-8", "replace"),
        "bytes": list(content),
    }
    return member | {"special": True} if tokens.is_special(each.token) else member


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of byte-level BPE stands for.

    Printable bytes are written as themselves; the others, in order, as the characters from 256 on. Source: GPT-2's
    `encoder.py`, https://github.com/openai/gpt-2/blob/master/src/encoder.py.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain = {character: ord(character) for character in alphabet if ord(character) < 256}
    others = sorted(set(range(256)) - set(plain.values()))
    return plain | {chr(256 + place): byte for place, byte in enumerate(others)}
