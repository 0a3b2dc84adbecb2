"""From a structure to a grammar in the language of llguidance."""

import json
import re
from typing import TYPE_CHECKING

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from backends.llm.structured_outputs import structural_tags
from backends.llm.structured_outputs.ipc_messages import MAX_REASON
from backends.llm.structured_outputs.json_schema import explain_schema_error, normalize_schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# Compact JSON: a small model would fill its answer with spaces. Keywords that cannot be enforced are refused.
_JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}
_REGEX_ERROR = re.compile(r"^error: (.{1,200})$", re.M)
# Without `u`: a name that is written in escapes would not be recognised as one of the schema's.
_ESCAPES = 'nrbtf"\\'


def to_llguidance(kind: str, text: str) -> str:
    """The grammar that a structure is. Raises whatever the library raises, and `ValueError`."""
    match kind:
        case "json":
            schema = normalize_schema(json.loads(text))
            options = _JSON_OPTIONS if _has_controls(schema) else {**_JSON_OPTIONS, "json_allowed_escapes": _ESCAPES}
            return str(LLMatcher.grammar_from_json_schema({} if schema is True else schema, overrides=options))
        case "regex":
            return str(LLMatcher.grammar_from_regex(text))
        case "choice":
            choices = map(structural_tags.lark_literal, json.loads(text))
            return str(LLMatcher.grammar_from_lark("start: " + " | ".join(choices)))
        case "structural_tag":
            return structural_tags.structural_tag_grammar(text, to_llguidance)
        case _:
            # Only GBNF defines with this sign.
            lark = gbnf_to_lark(text) if "::=" in text else text
            return str(LLMatcher.grammar_from_lark(lark))


def _has_controls(schema: object) -> bool:
    """Whether constants or names of a schema hold characters that JSON writes as `\\u00…` only."""
    return "\\u00" in json.dumps(schema, ensure_ascii=False)


def explain_compile_error(kind: str, text: str, error: str) -> str:
    """Return why a structure cannot be enforced of whose grammar the library says `error`."""
    match kind:
        case "json":
            return explain_schema_error([json.loads(text)], error, _regex_error)
        case "structural_tag":
            return explain_schema_error(structural_tags.schemas_in_tag(text), error, _regex_error)
        case _:
            return error


def _regex_error(expression: str) -> str | None:
    """What is wrong with a regular expression; None where nothing is."""
    error = LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(expression))
    if not error:
        return None
    found = _REGEX_ERROR.search(error)
    return (found[1] if found else "it is too complex").rstrip(".") + "."


def trim_library_error(text: str) -> str:
    """The library's reason, without the dump of its state."""
    if "NoExtension" in text[:40]:
        return "no text follows it."
    text = text.split("\n<state>")[0].replace("\n<non-verbose/>", "").strip()
    return (text[:MAX_REASON] or "no reason was given").rstrip(".") + "."
