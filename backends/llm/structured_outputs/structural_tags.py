"""Structural tags: an answer put together of literal texts, schemas and expressions.

The format is xgrammar's, which vLLM takes too (https://xgrammar.mlc.ai/docs/tutorials/structural_tag). Of its parts
those are known that say everything of an answer; those that leave text free are refused.
"""

import json
from collections.abc import Callable
from typing import Any

MAX_TAGS = 16
"""Tags with a separator in one answer: a small model might otherwise go on until its room is used."""
_MAX_DEPTH = 16


def structural_tag_grammar(text: str, source: Callable[[str, str], str]) -> str:
    """The grammar of a structural tag, in the language of llguidance.

    `source` gives that of a structure of the kind `json` or `regex`: JSON whose member `grammars` holds one. Raises
    `ValueError` for what is no structural tag or holds parts that are not known, and whatever `source` raises.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("type") != "structural_tag":
        raise ValueError("a structural tag is an object of the type 'structural_tag'")
    parts = _TagGrammarBuilder(source)
    start = parts.add_rule(document.get("format"))
    lark = "\n".join([f"start: {start}", *parts.rules])
    return json.dumps({"grammars": [{"lark_grammar": lark}, *parts.grammars]})


def schemas_in_tag(text: str) -> list[Any]:
    """The JSON schemas of a structural tag."""
    found, waiting = [], [json.loads(text)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and part.get("type") == "json_schema":
            found.append(part.get("json_schema"))
        elif isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    return found


def lark_literal(text: str) -> str:
    """A text as Lark writes it."""
    # JSON leaves this character as it is, and the library's lexer does not take it so.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class _TagGrammarBuilder:
    """The rules and grammars that the parts of a format become."""

    def __init__(self, source: Callable[[str, str], str]) -> None:
        self._to_llguidance = source
        self.rules: list[str] = []
        self.grammars: list[Any] = []

    def add_rule(self, part: Any, depth: int = 0) -> str:
        """The name of the rule that `part` becomes."""
        kind = part.get("type") if isinstance(part, dict) else None
        if depth > _MAX_DEPTH:
            raise ValueError("a structural tag is nested too deeply")
        match kind:
            case "const_string":
                written = lark_literal(_text(part, "value", kind))
            case "json_schema":
                return self._add_grammar("json", json.dumps(part.get("json_schema")))
            case "regex":
                return self._add_grammar("regex", _text(part, "pattern", kind))
            case "sequence":
                written = " ".join(self._add_rules(part, "elements", kind, depth))
            case "or":
                written = " | ".join(self._add_rules(part, "elements", kind, depth))
            case "tag":
                begin, end = lark_literal(_text(part, "begin", kind)), lark_literal(_text(part, "end", kind))
                written = f"{begin} {self.add_rule(part.get('content'), depth + 1)} {end}"
            case "tags_with_separator":
                written = self._tags(part, depth)
            case _:
                raise ValueError(f"parts of a structural tag of the type {str(kind)[:64]!r} are not known")
        self.rules.append(f"part{len(self.rules)}: {written}")
        return f"part{len(self.rules) - 1}"

    def _tags(self, part: Any, depth: int) -> str:
        if not part.get("at_least_one"):
            raise ValueError("tags_with_separator needs at_least_one")
        tags = " | ".join(self._add_rules(part, "tags", "tags_with_separator", depth))
        if part.get("stop_after_first"):
            return tags
        separator = lark_literal(_text(part, "separator", "tags_with_separator"))
        return f"({tags}) ({separator} ({tags})){{0,{MAX_TAGS - 1}}}"

    def _add_rules(self, part: Any, name: str, kind: str, depth: int) -> list[str]:
        parts = part.get(name)
        if not isinstance(parts, list) or not parts:
            raise ValueError(f"the {name} of a {kind} are a list of parts")
        return [self.add_rule(inner, depth + 1) for inner in parts]

    def _add_grammar(self, kind: str, text: str) -> str:
        (only,) = json.loads(self._to_llguidance(kind, text))["grammars"]
        name = f"{kind}{len(self.grammars)}"
        self.grammars.append({**only, "name": name})
        return f"@{name}"


def _text(part: Any, name: str, kind: str) -> str:
    value = part.get(name)
    if not isinstance(value, str) or (not value and name != "end"):
        raise ValueError(f"the {name} of a {kind} is a text")
    return value
