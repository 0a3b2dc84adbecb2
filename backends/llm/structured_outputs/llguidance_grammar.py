"""Translates a structure into a grammar of llguidance, and llguidance's errors into reasons for the caller.

The grammar format: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.
"""

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

# Compact JSON, because a small model would fill its answer with spaces; and no keyword that cannot be enforced.
_JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}
_REGEX_ERROR = re.compile(r"^error: (.{1,200})$", re.M)
# The allowed JSON escapes. Without `u`: a member name written in escapes would not match the schema's name.
_ESCAPES = 'nrbtf"\\'


def _options_without_unicode_escapes() -> "JsonCompileOptions":
    """Return the options for schemas that need no `\\u`. Older releases, such as 0.7, cannot forbid it."""
    options: JsonCompileOptions = {**_JSON_OPTIONS, "json_allowed_escapes": _ESCAPES}
    refusal = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema({}, overrides=options))
    return _JSON_OPTIONS if refusal else options


_PLAIN_JSON_OPTIONS = _options_without_unicode_escapes()


def to_llguidance(kind: str, text: str) -> str:
    """Return the grammar of a structure, as JSON. Raises `ValueError`, and whatever the library raises.

    `kind` and `text` are those of `StructuredOutputsParams`.
    """
    match kind:
        case "json":
            schema = normalize_schema(json.loads(text))
            options = _JSON_OPTIONS if _has_controls(schema) else _PLAIN_JSON_OPTIONS
            return str(LLMatcher.grammar_from_json_schema({} if schema is True else schema, overrides=options))
        case "regex":
            return str(LLMatcher.grammar_from_regex(text))
        case "choice":
            choices = map(structural_tags.lark_literal, json.loads(text))
            return str(LLMatcher.grammar_from_lark("start: " + " | ".join(choices)))
        case "structural_tag":
            return structural_tags.structural_tag_grammar(text, to_llguidance)
        case _:
            # Only GBNF defines rules with this sign.
            lark = gbnf_to_lark(text) if "::=" in text else text
            return str(LLMatcher.grammar_from_lark(lark))


def _has_controls(schema: object) -> bool:
    """Return whether constants or names of a schema contain characters that JSON can only write as `\\u00…`."""
    return "\\u00" in json.dumps(schema, ensure_ascii=False)


def explain_compile_error(kind: str, text: str, error: str) -> str:
    """Return the reason for the caller why a structure cannot be enforced, from the library's `error`."""
    match kind:
        case "json":
            return explain_schema_error([json.loads(text)], error, _regex_error)
        case "structural_tag":
            return explain_schema_error(structural_tags.schemas_in_tag(text), error, _regex_error)
        case _:
            return error


def _regex_error(expression: str) -> str | None:
    """Return the error of a regular expression; None if it is valid."""
    error = LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(expression))
    if not error:
        return None
    found = _REGEX_ERROR.search(error)
    return (found[1] if found else "it is too complex").rstrip(".") + "."


def trim_library_error(text: str) -> str:
    """Return the library's reason without the dump of its state."""
    if "NoExtension" in text[:40]:
        return "no text matches it."
    text = text.split("\n<state>")[0].replace("\n<non-verbose/>", "").strip()
    return (text[:MAX_REASON] or "no reason was given").rstrip(".") + "."
