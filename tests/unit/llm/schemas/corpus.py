"""Schemas as clients' libraries write them."""

import datetime
import decimal
import enum
import ipaddress
import uuid
from typing import Annotated, Any, Literal

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, Json, SecretStr, StringConstraints, conlist


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog", "hound"] = "dog"
    tricks: list[str] = []


class Bird(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["bird"]
    wings: Annotated[int, Field(ge=0, le=2)]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog | Bird, Field(discriminator="kind")]
    others: list[Annotated[Cat | Annotated[Dog | Bird, Field(discriminator="kind")], Field(discriminator="kind")]] = []


class Tree(BaseModel):
    name: str
    children: list["Tree"] = Field(default=[], max_length=2)
    parent: "Tree | None" = None


class Maps(BaseModel):
    literal: dict[Literal["p", "q"], int]
    by_colour: dict[Colour, float]
    by_id: dict[uuid.UUID, Cat]
    by_number: dict[int, str]
    by_length: dict[Annotated[str, StringConstraints(min_length=2, max_length=3)], int]
    by_pattern: dict[Annotated[str, StringConstraints(pattern="^a+$")], int]


class Kinds(BaseModel):
    d: decimal.Decimal
    d2: Annotated[decimal.Decimal, Field(max_digits=5, decimal_places=2)]
    few: set[Literal["x", "y", "z"]]
    flags: frozenset[bool]
    pair: tuple[int, str]
    row: tuple[int, ...]
    raw: bytes
    secret: SecretStr
    at: datetime.datetime
    span: datetime.timedelta
    day: datetime.date
    time: datetime.time
    ip: ipaddress.IPv4Address
    ip6: ipaddress.IPv6Address
    url: AnyUrl
    text: Json[Any]
    big: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
    share: Annotated[float, Field(gt=0, lt=1e20, multiple_of=0.5)]
    pet: Cat | None = None
    whatever: Any = None
    few_numbers: conlist(int, min_length=1, max_length=3)  # type: ignore[valid-type]


PYDANTIC = {model.__name__: model.model_json_schema() for model in (Owner, Tree, Maps, Kinds, Cat, Bird)}

_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
ZOD = {
    "zod 4 object": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "ulid", "pattern": "^[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}$"},
            "mail": {"type": "string", "format": "email", "pattern": _EMAIL},
            "age": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
            "never": {"not": {}},
            "any": {},
            "role": {"default": "user", "type": "string", "enum": ["user", "admin"]},
        },
        "required": ["id", "mail", "age", "any", "role"],
        "additionalProperties": False,
    },
    "zod 4 record": {
        "type": "object",
        "propertyNames": {"type": "string"},
        "additionalProperties": {"type": "number"},
    },
    "zod 4 record of an enum": {
        "type": "object",
        "propertyNames": {"type": "string", "enum": ["a", "b"]},
        "additionalProperties": {"type": "boolean"},
        "required": ["a", "b"],
    },
    "zod 4 union": {
        "oneOf": [
            {"type": "object", "properties": {"type": {"type": "string", "const": "a"}, "n": {"type": "number"}},
             "required": ["type", "n"], "additionalProperties": False},
            {"type": "object", "properties": {"type": {"type": "string", "const": "b"}}, "required": ["type"],
             "additionalProperties": False},
        ]
    },
    "zod-to-json-schema": {
        "$ref": "#/definitions/Root",
        "definitions": {
            "Root": {
                "type": "object",
                "properties": {
                    "next": {"$ref": "#/definitions/Root"},
                    "same": {"$ref": "#/definitions/Root/properties/size"},
                    "size": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
                    "pair": {"type": "array", "minItems": 2, "maxItems": 2,
                             "items": [{"type": "string", "maxLength": 3}, {"type": "integer"}]},
                    "both": {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                                       {"type": "object", "properties": {"b": {"type": "integer"}}}]},
                    "nothing": {"type": ["string", "null"], "maxLength": 4},
                    "optional": {"anyOf": [{"not": {}}, {"type": "boolean"}]},
                },
                "required": ["size", "both"],
                "additionalProperties": False,
            }
        },
        "$schema": "http://json-schema.org/draft-07/schema#",
    },
    "zod 4 intersection": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"anyOf": [{"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
                       {"type": "object", "properties": {"c": {"type": "boolean"}}}]},
        ]
    },
}  # fmt: skip

_BASE = {
    "type": "object",
    "properties": {"id": {"type": "integer", "format": "int64", "minimum": 1}},
    "required": ["id"],
}
OPENAPI = {
    "formats": {
        "type": "object",
        "properties": {
            name: {"type": "string", "format": name, "maxLength": 5}
            for name in ("password", "byte", "binary", "path", "phone", "ulid", "iri", "regex", "unknown")
        }
        | {"n32": {"type": "integer", "format": "int32", "maximum": 2147483647}, "f": {"type": "number", "format": "float"}},
    },
    "inheritance": {
        "components": {"schemas": {"Base": _BASE}},
        "allOf": [
            {"$ref": "#/components/schemas/Base"},
            {"type": "object", "properties": {"name": {"type": "string", "nullable": True, "example": "x"}},
             "required": ["name"]},
        ],
        "discriminator": {"propertyName": "id"},
        "xml": {"name": "Base"},
    },
    "a reference beside properties": {
        "$defs": {"Base": _BASE},
        "$ref": "#/$defs/Base",
        "properties": {"more": {"type": "boolean"}},
        "unevaluatedProperties": False,
    },
    "branches told apart by what they require": {
        "oneOf": [
            {"type": "object", "properties": {"meow": {"type": "boolean"}, "name": {"type": "string"}}, "required": ["meow"]},
            {"type": "object", "properties": {"bark": {"type": "boolean"}, "name": {"type": "string"}}, "required": ["bark"]},
        ]
    },
    "one of two properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "any of two properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": "http://example.com/thing",
        "type": "object",
        "properties": {"n": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 5}},
        "required": ["n"],
    },
}  # fmt: skip

KEYWORDS: dict[str, Any] = {
    "names of any kind": {"type": "object", "propertyNames": {}, "maxProperties": 2.0},
    "names that are constants": {
        "type": "object", "propertyNames": {"anyOf": [{"const": "a"}, {"enum": ["b"]}]}, "additionalProperties": {"type": "null"},
        "minProperties": 1,
    },
    "what constrains nothing": {
        "type": "array", "items": {"type": "integer"}, "uniqueItems": False, "minContains": 0, "maxItems": 2.0,
        "contains": {"type": "string"}, "unevaluatedItems": True, "if": {"type": "string"}, "not": False,
        "deprecated": True, "$comment": "x", "contentEncoding": "base64", "contentSchema": {"type": "nonsense"},
    },
    "unevaluatedProperties": {"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": True},
    "data that looks like a schema": {
        "type": "object",
        "properties": {
            "default": {"const": {"$ref": "#/nowhere", "type": "nonsense"}},
            "enum": {"enum": [{"minProperties": 5}, {"pattern": "(a"}]},
            "properties": {"type": "integer", "default": {"$ref": "#/nowhere"}, "examples": [{"type": 5}]},
        },
        "required": ["default", "enum"],
    },
    "anchors": {
        "$id": "https://example.com/root.json",
        "type": "object",
        "properties": {"a": {"$ref": "#leaf"}, "b": {"$ref": "root.json#/$defs/leaf"}, "c": {"$ref": "other.json"}},
        "required": ["a", "b", "c"],
        "$defs": {"leaf": {"$anchor": "leaf", "type": "integer"},
                  "other": {"$id": "other.json", "$ref": "#/$defs/in", "$defs": {"in": {"type": "boolean"}}}},
    },
    "escapes in pointers": {
        "type": "object", "properties": {"a/b~c": {"type": "null"}, "x": {"$ref": "#/properties/a~1b~0c"}}, "required": ["x"]
    },
    "numbers beyond 64 bits": {
        "type": "array", "minItems": 4, "maxItems": 4,
        "prefixItems": [
            {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
            {"type": "integer", "maximum": 1e20, "minimum": 0},
            {"type": "number", "exclusiveMaximum": 1e20, "minimum": -1e20},
            {"type": "integer", "minimum": 2**60, "maximum": 2**64 - 1},
        ],
    },
    "dependencies": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        "dependencies": {"a": ["b"], "c": {"properties": {"d": {"type": "boolean"}}, "required": ["d"]}},
    },
    "dependentRequired": {
        "type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "dependentRequired": {"a": ["b"]}
    },
    "dependentSchemas": {
        "type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "integer"}},
        "dependentSchemas": {"a": {"properties": {"b": {"minimum": 5, "maximum": 9}}}},
    },
    "if": {
        "type": "object",
        "properties": {"country": {"enum": ["US", "NL"]}, "code": {"type": "string", "maxLength": 6}},
        "required": ["country"],
        "if": {"properties": {"country": {"const": "US"}}},
        "then": {"properties": {"code": {"pattern": "^[0-9]{5}$"}}, "required": ["code"]},
        "else": {"properties": {"code": {"pattern": "^[A-Z]{2}$"}}},
    },
    "unique": {"type": "array", "uniqueItems": True, "items": {"enum": ["a", 1, None, True]}, "minItems": 1},
    "unique sets": {"type": "array", "uniqueItems": True, "items": {"enum": list("abcdefg")}},
    "unique or null": {"type": ["array", "null"], "uniqueItems": True, "items": {"type": "boolean"}, "minItems": 2},
    "not a type": {"not": {"type": ["object", "array", "string"]}},
    "not a value": {"type": "string", "enum": ["a", "b", "c"], "not": {"const": "b"}},
    "not a property": {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "not": {"required": ["a"]}},
    "at most one": {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
                    "minProperties": 2, "maxProperties": 2},
    "closed in a tree": {
        "type": "object", "properties": {"kind": {"enum": ["x", "y"]}},
        "allOf": [{"properties": {"a": {"type": "integer"}}}, {"$ref": "#/$defs/more"}],
        "anyOf": [{"properties": {"b": {"type": "integer"}}, "required": ["b"]},
                  {"properties": {"kind": {"const": "y"}, "c": {"type": "null"}}, "required": ["c", "kind"]}],
        "$defs": {"more": {"properties": {"deep": {"type": "object", "properties": {"z": {"type": "boolean"}}}}}},
    },
    "numbers told apart": {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "number", "minimum": 5}, {"type": "null"}]},
    "nested choices": {
        "oneOf": [
            {"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}}, {"type": "object", "properties": {"k": {"const": 2}}}]},
            {"type": "object", "properties": {"k": {"enum": [3, 4]}, "v": {"type": "null"}}},
        ]
    },
}  # fmt: skip
CORPUS: dict[str, Any] = PYDANTIC | ZOD | OPENAPI | KEYWORDS
