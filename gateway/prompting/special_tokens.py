"""Protection against special-token injection: special tokens in callers' texts are plain text.

A rendered prompt is tokenised as one text, in which `<|im_end|>` ends a turn even if a user, a tool or a web page wrote
it. So the gateway must know which parts of the rendered prompt come from the caller, although the template may cut,
strip and join its inputs.

The parameter `special_tokens_in_content` of a model switches this off; docs/architecture.md has its values.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from gateway.errors import GatewayError
from gateway.model_card.card import TextCard
from gateway.prompting import chat_template
from gateway.prompting.token_pattern import any_token_pattern, token_start_pattern

IMAGE_PLACEHOLDER = "<image>"
"""The placeholder of an image in a prompt (docs/architecture.md)."""

# The forms of tokens that mark turns and the like. `<think>` and `<tool_call>` are not among them: they mark a model's
# own text, and prompts tell models to use them.
_CONTROL_TOKEN = re.compile(
    r"<\|[^<>|\s]{1,64}\|?>|<[^<>|\s]{1,64}\|>|<｜[^<>\s]{1,64}｜>|<(?:start|end)_of_\w{1,32}>"  # noqa: RUF001 - DeepSeek's
    r"|<(?:/?s|bos|eos|pad|unk|sop|eop)>|\[/?[A-Z][A-Z0-9_]{2,32}\]|<</?[A-Z]{2,16}>>"
)

# Where the tokenizer's special tokens are unknown, every text of this form may be one: `<|endoftext|>`.
_CONTROL_TOKEN_FORM = r"<\|[^<>|\s]{1,64}\|>"


class SpecialTokenGuard:
    """The special tokens that must not be recognised in callers' texts to one model."""

    def __init__(
        self, source: str, *, tokens: frozenset[str], known: frozenset[str] | None, named: frozenset[str]
    ) -> None:
        """`source` is the chat template, `tokens` are the texts that must not be recognised.

        `known` are the special tokens of the model's tokenizer, None where they are unknown. `named` are those that the
        template uses by name (`bos_token`).
        """
        self.source = source
        form = (
            _CONTROL_TOKEN_FORM
            if known is None and any(re.fullmatch(_CONTROL_TOKEN_FORM, token) for token in tokens)
            else ""
        )
        self.tokens = any_token_pattern(tokens, form)
        self.tokenizer_tokens = self.tokens if known is None else any_token_pattern(tokens & known)
        unknown = frozenset() if known is None else tokens - known
        self.break_patterns = {
            True: token_start_pattern(unknown) if unknown else None,
            False: token_start_pattern(tokens, form),
        }
        words = {token for token in tokens if token[0].isalnum() or token[0].isspace()}
        marks = tokens - words
        # Letters cannot be masked everywhere: the template compares names.
        self.words = any_token_pattern(words) if words else None
        beginnings = {token[:size] for token in marks for size in range(1, len(token))}
        # Where the template writes the beginning of a token alone, a caller's text may complete it.
        open_ended = any(_ends_in_any(text, beginnings) for text in chat_template.literal_texts(source))
        self.masked = tuple(dict.fromkeys([t[0] for t in marks] + [t[-1] for t in marks if open_ended]))
        self.letters = tuple(dict.fromkeys(token[0] for token in words))
        searched = [word for word in chat_template.searched_strings(source) if any(map(word.__contains__, self.masked))]
        # A template may search an earlier answer for reasoning and calls, even where their tags are special tokens.
        own = {
            token for token in marks if token in searched and token not in named and not _CONTROL_TOKEN.fullmatch(token)
        }
        self.exempt_words = _disjoint_words(searched, tokens)
        self.exempt_words_in_answers = _disjoint_words(searched, tokens - own)

    def needs_masking(self, texts: Iterable[str]) -> bool:
        """Return whether any of `texts` may contain a part of a special token, so that it has to be masked."""
        masked, words = self.masked, self.words
        for text in texts:
            for character in masked:
                if character in text:
                    return True
            if words and words.search(text):
                return True
        return False


@lru_cache(maxsize=64)
def get_guard(card: TextCard) -> SpecialTokenGuard | None:
    """Return the guard for a model with a chat template; None if no special token needs protection."""
    assert card.chat_template is not None
    return _build_guard(
        card.chat_template,
        card.control_tokens,
        tuple(card.special_tokens.items()),
        card.recognizes_special_tokens,
        card.supports_images,
    )


@lru_cache(maxsize=64)
def _build_guard(
    source: str,
    control_tokens: tuple[str, ...] | None,
    special_tokens: tuple[tuple[str, str], ...],
    recognised: bool,
    supports_images: bool,
) -> SpecialTokenGuard | None:
    # The engine counts image placeholders, so those in callers' texts must not be recognised.
    tokens = {IMAGE_PLACEHOLDER} if supports_images else set()
    named = dict(special_tokens)
    known = None if control_tokens is None else frozenset(control_tokens) | tokens | {*named.values()}
    if not recognised:
        tokens |= {*named.values(), *(known or ())}
        tokens |= {mark for text in _sample_renders(source, named) for mark in _CONTROL_TOKEN.findall(text)}
    # A token of one character cannot be broken up, and white space marks nothing.
    tokens = {token for token in tokens if len(token) > 1 and not token.isspace()}
    return (
        SpecialTokenGuard(source, tokens=frozenset(tokens), known=known, named=frozenset(named.values()))
        if tokens
        else None
    )


def _sample_renders(source: str, named: Mapping[str, str]) -> Iterator[str]:
    """Yield texts that a template writes: its own, and rendered chats, for marks that it composes (`<|` role `|>`)."""
    yield from chat_template.literal_texts(source)
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "tool", "user")]
    for part in ([turns[1]], turns[:3], turns[1:3], turns):
        for content in ("x", [{"type": "text", "text": "x"}]):
            try:
                yield chat_template.render(source, [{**turn, "content": content} for turn in part], named)
            except GatewayError:
                continue


def _disjoint_words(words: Iterable[str], tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the words that share no text with a token, the longest first."""
    tokens = tuple(tokens)
    disjoint = (
        word
        for word in words
        if not any(word in token or token in word or _overlap(word, token) or _overlap(token, word) for token in tokens)
    )
    return tuple(sorted(disjoint, key=len, reverse=True))


def _ends_in_any(text: str, beginnings: Collection[str]) -> bool:
    return any(text[-size:] in beginnings for size in range(1, max(map(len, beginnings), default=0) + 1))


def _overlap(first: str, second: str) -> bool:
    """Return whether an end of `first` is a beginning of `second`, and not the whole of either."""
    return any(first.endswith(second[:size]) for size in range(1, min(len(first) + 1, len(second))))
