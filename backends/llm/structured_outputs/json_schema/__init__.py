"""From a JSON schema as callers write it to one that llguidance enforces to the letter.

`normal` keeps the meaning, but for one thing: objects that name properties and say nothing of others are closed. Every
answer under its result is valid under the caller's schema. What it cannot put so is refused by keyword and place.
"""

from backends.llm.structured_outputs.json_schema.compile_errors import explain_schema_error
from backends.llm.structured_outputs.json_schema.normalization import normalize_schema

__all__ = ["explain_schema_error", "normalize_schema"]
