"""The base class of request bodies: strict types, unknown fields ignored, and a check that ends at the first error."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

UNION_TAG = "·"
"""First character of a union's tags. Pydantic puts tags into the path of an error; `routes` removes them again."""

Item = TypeVar("Item")

# The containers for which pydantic's core has the option `fail_fast`.
_CONTAINERS = frozenset({"list", "deque", "tuple", "set", "frozenset", "dict", "frozendict", "ordered-dict", "counter"})


def _fail_fast(schema: Any) -> None:
    """Set `fail_fast` on every container of a pydantic core schema, in place."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _fail_fast(part)
    elif isinstance(schema, dict):
        kind = schema.get("type")  # in a table of fields, this is the schema of a field called "type"
        if isinstance(kind, str) and kind in _CONTAINERS:
            schema["fail_fast"] = True
        for name, part in schema.items():
            if not isinstance(kind, str) or name not in ("metadata", "serialization"):
                _fail_fast(part)


class WireModel(BaseModel):
    """A request body, or a part of one. Types are not converted, and unknown fields are ignored.

    Validation of a list or an object stops at its first invalid item: a million errors would take minutes and
    gigabytes.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema


def yield_gil(item: Item) -> Item:
    """Return `item` unchanged.

    As a validator of list items it makes pydantic call Python, the only point where pydantic releases the interpreter
    lock: other threads run between two items of a long list.
    """
    return item
