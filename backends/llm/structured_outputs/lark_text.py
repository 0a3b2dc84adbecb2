"""A structure as one text in llguidance's Lark, for engines that take no other form of its grammars."""

import json
import re

from backends.llm.structured_outputs.llguidance_grammar import to_llguidance

_OPTIONS = "%llguidance {}\n"
"""Tells Lark from GBNF, which the readers of such texts otherwise guess."""
_REFERENCE = re.compile(r'"(?:\\.|[^"\\])*"|@(\w+)')
"""A string, or a reference to another grammar."""


def to_lark(kind: str, text: str) -> str:
    """Return the grammar of a structure, the same that `CompiledGrammar` enforces, as one Lark text.

    `kind` and `text` are those of `StructuredOutputsParams`. Raises `ValueError`, and whatever the library raises.
    """
    grammar = to_llguidance(kind, text)
    if not grammar.startswith("{"):
        return grammar if "%llguidance" in grammar else _OPTIONS + grammar
    main, *others = json.loads(grammar)["grammars"]
    rules = [_as_rule(main, "start"), *(_as_rule(other, other["name"]) for other in others)]
    return _OPTIONS + "\n".join(rules)


def _as_rule(grammar: dict[str, object], name: str) -> str:
    """Return the rules of one of llguidance's grammars, the first of which has the name `name`."""
    lark = grammar.get("lark_grammar")
    if lark is None:
        return f"{name}: %json {json.dumps(grammar['json_schema'])}"
    _, _, rule = str(lark).partition("start:")
    if "\n" not in rule:  # a regular expression, which may contain any character
        return f"{name}:{rule}"
    return f"{name}:" + _REFERENCE.sub(lambda found: found[1] or found[0], rule)
