"""From a structure to a grammar in the language of llguidance."""

import json
from typing import TYPE_CHECKING

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from backends.llm.structures import tags
from backends.llm.structures.messages import MAX_REASON

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# Compact JSON: a small model would fill its answer with spaces. Keywords that cannot be enforced are refused.
_JSON: "JsonCompileOptions" = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}


def source(kind: str, text: str) -> str:
    """The grammar that a structure is. Raises whatever the library raises, and `ValueError`."""
    match kind:
        case "json":
            schema = json.loads(text)
            _check_schema(schema)
            return str(LLMatcher.grammar_from_json_schema({} if schema is True else schema, overrides=_JSON))
        case "regex":
            return str(LLMatcher.grammar_from_regex(text))
        case "choice":
            choices = map(tags.literal, json.loads(text))
            return str(LLMatcher.grammar_from_lark("start: " + " | ".join(choices)))
        case "structural_tag":
            return tags.grammar(text, source)
        case _:
            # Only GBNF defines with this sign.
            lark = gbnf_to_lark(text) if "::=" in text else text
            return str(LLMatcher.grammar_from_lark(lark))


def reason(text: str) -> str:
    """The library's reason, without the dump of its state."""
    if "NoExtension" in text[:40]:
        return "no text follows it."
    text = text.split("\n<state>")[0].replace("\n<non-verbose/>", "").strip()
    return (text[:MAX_REASON] or "no reason was given").rstrip(".") + "."


def _check_schema(schema: object) -> None:
    """Raise `ValueError` for what the library would take, and not enforce."""
    if schema is False:
        raise ValueError("the schema allows nothing")
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise ValueError("x-guidance would change what JSON is")
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            parts += part.values()
            least = part.get("minProperties")
            names = part.get("patternProperties") or part.get("additionalProperties", True) is not False
            if isinstance(least, int) and least > 1 and names:
                # A name that is written twice would count twice.
                raise ValueError("minProperties needs additionalProperties false, and no patternProperties")
