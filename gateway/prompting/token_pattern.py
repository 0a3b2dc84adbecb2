"""Regular expressions that find tokens in a text as tokenizers do: the leftmost, and the longest of those there."""

import re
from collections.abc import Iterable
from typing import Any


def any_token_pattern(tokens: Iterable[str], form: str = "") -> re.Pattern[str]:
    """Return a pattern that matches any of `tokens`, or else the pattern `form`.

    Tokens share prefixes (256 of Llama's begin with `<|reserved_special_token_`), and a plain alternation would try
    each of them at every `<`. So the pattern is a trie.
    """
    root: dict[str, Any] = {}
    for token in tokens:
        node = root
        for character in token:
            node = node.setdefault(character, {})
        node[""] = {}
    # Without tokens nothing matches.
    return re.compile("|".join(filter(None, (_render_trie(root), form))) or r"(?!)")


def token_start_pattern(tokens: Iterable[str], form: str = "") -> re.Pattern[str]:
    """Return a pattern that matches the first character of any of `tokens`, also of one that begins within another.

    Each token has two characters or more. `form` is that of `any_token_pattern`; its first character is a literal.
    """
    rests: dict[str, list[str]] = {}
    for token in tokens:
        rests.setdefault(token[0], []).append(token[1:])
    # The first character stands before the lookahead, so that a search jumps from one such character to the next.
    starts = [f"{re.escape(first)}(?={any_token_pattern(rest).pattern})" for first, rest in rests.items()]
    if form:
        starts.append(f"{form[0]}(?={form[1:]})")
    return re.compile("|".join(starts) or r"(?!)")


def _render_trie(node: dict[str, Any]) -> str:
    """Return the pattern of a trie from `node` on. A run of characters without a branch stays one literal."""
    run = ""
    while len(node) == 1 and "" not in node:
        ((character, node),) = node.items()
        run += re.escape(character)
    branches = [re.escape(character) + _render_trie(after) for character, after in node.items() if character]
    if not branches:
        return run
    optional = "?" if "" in node else ""
    return f"{run}(?:{'|'.join(branches)}){optional}"
