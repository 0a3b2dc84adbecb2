"""From a structure to a grammar in the language of llguidance."""

import json
import re
from typing import TYPE_CHECKING

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from backends.llm.structures import tags
from backends.llm.structures.messages import MAX_REASON
from backends.llm.structures.schemas import explained, normal

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# Compact JSON: a small model would fill its answer with spaces. Keywords that cannot be enforced are refused.
_JSON: "JsonCompileOptions" = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}
_EXPRESSION_ERROR = re.compile(r"^error: (.{1,200})$", re.M)
# Without `u`: a name that is written in escapes would not be recognised as one of the schema's.
_ESCAPES = 'nrbtf"\\'


def source(kind: str, text: str) -> str:
    """The grammar that a structure is. Raises whatever the library raises, and `ValueError`."""
    match kind:
        case "json":
            schema = normal(json.loads(text))
            options = _JSON if _has_controls(schema) else {**_JSON, "json_allowed_escapes": _ESCAPES}
            return str(LLMatcher.grammar_from_json_schema({} if schema is True else schema, overrides=options))
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


def _has_controls(schema: object) -> bool:
    """Whether constants or names of a schema hold characters that JSON writes as `\\u00…` only."""
    return "\\u00" in json.dumps(schema, ensure_ascii=False)


def failure(kind: str, text: str, error: str) -> str:
    """Return why a structure cannot be enforced of whose grammar the library says `error`."""
    match kind:
        case "json":
            return explained([json.loads(text)], error, _wrong)
        case "structural_tag":
            return explained(tags.schemas(text), error, _wrong)
        case _:
            return error


def _wrong(expression: str) -> str | None:
    """What is wrong with a regular expression; None where nothing is."""
    error = LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(expression))
    if not error:
        return None
    found = _EXPRESSION_ERROR.search(error)
    return (found[1] if found else "it is too complex").rstrip(".") + "."


def reason(text: str) -> str:
    """The library's reason, without the dump of its state."""
    if "NoExtension" in text[:40]:
        return "no text follows it."
    text = text.split("\n<state>")[0].replace("\n<non-verbose/>", "").strip()
    return (text[:MAX_REASON] or "no reason was given").rstrip(".") + "."
