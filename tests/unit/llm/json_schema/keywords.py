"""Schemas for single keywords."""

from typing import Any

KEYWORDS: dict[str, Any] = {
    "names of any kind": {"type": "object", "propertyNames": {}, "maxProperties": 2.0},
    "names that are constants": {
        "type": "object",
        "propertyNames": {"anyOf": [{"const": "a"}, {"enum": ["b"]}]},
        "additionalProperties": {"type": "null"},
        "minProperties": 1,
    },
    "keywords that constrain nothing": {
        "type": "array",
        "items": {"type": "integer"},
        "uniqueItems": False,
        "minContains": 0,
        "maxItems": 2.0,
        "contains": {"type": "string"},
        "unevaluatedItems": True,
        "if": {"type": "string"},
        "not": False,
        "deprecated": True,
        "$comment": "x",
        "contentEncoding": "base64",
        "contentSchema": {"type": "nonsense"},
    },
    "unevaluatedProperties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "unevaluatedProperties": True,
    },
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
        "$defs": {
            "leaf": {"$anchor": "leaf", "type": "integer"},
            "other": {"$id": "other.json", "$ref": "#/$defs/in", "$defs": {"in": {"type": "boolean"}}},
        },
    },
    "escapes in pointers": {
        "type": "object",
        "properties": {"a/b~c": {"type": "null"}, "x": {"$ref": "#/properties/a~1b~0c"}},
        "required": ["x"],
    },
    "numbers beyond 64 bits": {
        "type": "array",
        "minItems": 4,
        "maxItems": 4,
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
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
        "dependentRequired": {"a": ["b"]},
    },
    "dependentSchemas": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "integer"}},
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
    "not a property": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
        "not": {"required": ["a"]},
    },
    "at most one": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
        "minProperties": 2,
        "maxProperties": 2,
    },
    "closed in a tree": {
        "type": "object",
        "properties": {"kind": {"enum": ["x", "y"]}},
        "allOf": [{"properties": {"a": {"type": "integer"}}}, {"$ref": "#/$defs/more"}],
        "anyOf": [
            {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
            {"properties": {"kind": {"const": "y"}, "c": {"type": "null"}}, "required": ["c", "kind"]},
        ],
        "$defs": {"more": {"properties": {"deep": {"type": "object", "properties": {"z": {"type": "boolean"}}}}}},
    },
    "numbers told apart": {
        "oneOf": [{"type": "integer", "maximum": 3}, {"type": "number", "minimum": 5}, {"type": "null"}]
    },
    "nested choices": {
        "oneOf": [
            {
                "oneOf": [
                    {"type": "object", "properties": {"k": {"const": 1}}},
                    {"type": "object", "properties": {"k": {"const": 2}}},
                ]
            },
            {"type": "object", "properties": {"k": {"enum": [3, 4]}, "v": {"type": "null"}}},
        ]
    },
}
