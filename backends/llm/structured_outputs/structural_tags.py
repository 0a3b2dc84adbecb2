"""Structural tags: answers composed of literal texts, JSON schemas and regular expressions.

The format is xgrammar's, which vLLM accepts too: https://xgrammar.mlc.ai/docs/tutorials/structural_tag. The parts that
determine an answer completely are supported; parts that allow free text are refused.
"""

import json
from collections.abc import Callable
from typing import Any

MAX_TAGS = 16
"""Most tags of a `tags_with_separator` in one answer. Without a limit, a small model might go on until the context is
full."""
_MAX_DEPTH = 16


def structural_tag_grammar(text: str, to_llguidance: Callable[[str, str], str]) -> str:
    """Return the llguidance grammar of a structural tag, as JSON.

    `to_llguidance` returns the grammar of a structure of kind `json` or `regex`: JSON whose member `grammars` holds
    one. Raises `ValueError` if `text` is not a structural tag or has unsupported parts, and whatever `to_llguidance`
    raises.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("type") != "structural_tag":
        raise ValueError("a structural tag must be an object with the type 'structural_tag'")
    builder = _TagGrammarBuilder(to_llguidance)
    start = builder.add_rule(document.get("format"))
    lark = "\n".join([f"start: {start}", *builder.rules])
    return json.dumps({"grammars": [{"lark_grammar": lark}, *builder.grammars]})


def schemas_in_tag(text: str) -> list[Any]:
    """Return the JSON schemas of a structural tag."""
    found, waiting = [], [json.loads(text)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and part.get("type") == "json_schema":
            found.append(part.get("json_schema"))
        elif isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    return found


def lark_literal(text: str) -> str:
    """Return a string literal of Lark."""
    # JSON leaves this character as it is, and the library's lexer does not accept it.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class _TagGrammarBuilder:
    """Collects the Lark rules and the grammars of a tag's parts."""

    def __init__(self, to_llguidance: Callable[[str, str], str]) -> None:
        self._to_llguidance = to_llguidance
        self.rules: list[str] = []
        self.grammars: list[Any] = []

    def add_rule(self, part: Any, depth: int = 0) -> str:
        """Add a rule for `part`, and return its name. Raises `ValueError`."""
        kind = part.get("type") if isinstance(part, dict) else None
        if depth > _MAX_DEPTH:
            raise ValueError("a structural tag is nested too deeply")
        match kind:
            case "const_string":
                rule = lark_literal(_text(part, "value", kind))
            case "json_schema":
                return self._add_grammar("json", json.dumps(part.get("json_schema")))
            case "regex":
                return self._add_grammar("regex", _text(part, "pattern", kind))
            case "sequence":
                rule = " ".join(self._add_rules(part, "elements", kind, depth))
            case "or":
                rule = " | ".join(self._add_rules(part, "elements", kind, depth))
            case "tag":
                begin, end = lark_literal(_text(part, "begin", kind)), lark_literal(_text(part, "end", kind))
                rule = f"{begin} {self.add_rule(part.get('content'), depth + 1)} {end}"
            case "tags_with_separator":
                rule = self._tags(part, depth)
            case _:
                raise ValueError(f"parts of the type {str(kind)[:64]!r} are not supported in a structural tag")
        self.rules.append(f"part{len(self.rules)}: {rule}")
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
        elements = part.get(name)
        if not isinstance(elements, list) or not elements:
            raise ValueError(f"the {name} of a {kind} must be a list of parts")
        return [self.add_rule(element, depth + 1) for element in elements]

    def _add_grammar(self, kind: str, text: str) -> str:
        (only,) = json.loads(self._to_llguidance(kind, text))["grammars"]
        name = f"{kind}{len(self.grammars)}"
        self.grammars.append({**only, "name": name})
        return f"@{name}"


def _text(part: Any, name: str, kind: str) -> str:
    value = part.get(name)
    if not isinstance(value, str) or (not value and name != "end"):
        raise ValueError(f"the {name} of a {kind} must be a string")
    return value
