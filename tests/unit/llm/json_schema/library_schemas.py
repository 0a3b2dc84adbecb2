"""Schemas as zod and OpenAPI generators write them, and schemas with rare keywords."""

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
            {
                "type": "object",
                "properties": {"type": {"type": "string", "const": "a"}, "n": {"type": "number"}},
                "required": ["type", "n"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"type": {"type": "string", "const": "b"}},
                "required": ["type"],
                "additionalProperties": False,
            },
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
                    "pair": {
                        "type": "array",
                        "minItems": 2,
                        "maxItems": 2,
                        "items": [{"type": "string", "maxLength": 3}, {"type": "integer"}],
                    },
                    "both": {
                        "allOf": [
                            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                            {"type": "object", "properties": {"b": {"type": "integer"}}},
                        ]
                    },
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
            {
                "anyOf": [
                    {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
                    {"type": "object", "properties": {"c": {"type": "boolean"}}},
                ]
            },
        ]
    },
}

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
        | {
            "n32": {"type": "integer", "format": "int32", "maximum": 2147483647},
            "f": {"type": "number", "format": "float"},
        },
    },
    "inheritance": {
        "components": {"schemas": {"Base": _BASE}},
        "allOf": [
            {"$ref": "#/components/schemas/Base"},
            {
                "type": "object",
                "properties": {"name": {"type": "string", "nullable": True, "example": "x"}},
                "required": ["name"],
            },
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
            {
                "type": "object",
                "properties": {"meow": {"type": "boolean"}, "name": {"type": "string"}},
                "required": ["meow"],
            },
            {
                "type": "object",
                "properties": {"bark": {"type": "boolean"}, "name": {"type": "string"}},
                "required": ["bark"],
            },
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
}
