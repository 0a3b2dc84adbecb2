"""Normalizes a caller's JSON schema into one that llguidance enforces exactly.

`normalize_schema` keeps the meaning, with one exception: an object that names properties and says nothing about others
is closed. Every answer under the result is valid under the caller's schema. A keyword that cannot be enforced is
refused, with its name and location.

`document.py` locates schemas, `flattening.py` collects all schemas of one value, `value_bounds.py` tells alternatives
apart, `members.py` finds the members of objects. `objects.py`, `arrays.py` and `scalars.py` write the result.
"""

from backends.llm.structured_outputs.json_schema.compile_errors import explain_schema_error
from backends.llm.structured_outputs.json_schema.normalization import normalize_schema

__all__ = ["explain_schema_error", "normalize_schema"]
