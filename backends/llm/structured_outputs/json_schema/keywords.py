"""The keywords of JSON Schema, by what stands behind them and by what they are about.

https://json-schema.org/draft/2020-12/json-schema-validation, and the drafts before it. What is in no table here
constrains nothing: `title`, `description`, `default`, `examples`, `deprecated`, `readOnly`, `writeOnly`, `$comment`,
`contentEncoding`, `contentMediaType`, `contentSchema`, OpenAPI's `nullable`, `discriminator`, `example` and `x-…`.
"""

SINGLE_SUBSCHEMA = frozenset(
    {"additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
SUBSCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
"""`items` holds one schema or, up to draft 2019-09, a list of them."""
SUBSCHEMA_MAPS = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
REFERENCES = ("$ref", "$recursiveRef", "$dynamicRef")

NUMBER = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
STRING = frozenset({"minLength", "maxLength", "pattern", "format"})
ARRAY = frozenset(
    {"items", "additionalItems", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains"}
    | {"maxContains", "unevaluatedItems"}
)
OBJECT = frozenset(
    {"properties", "additionalProperties", "patternProperties", "required", "propertyNames", "minProperties"}
    | {"maxProperties", "unevaluatedProperties"}
)
ASSERTIONS = frozenset({"type", "const", "enum"}) | NUMBER | STRING | ARRAY | OBJECT
"""What says something by itself."""
IN_PLACE_APPLICATORS = frozenset(
    {"allOf", "anyOf", "oneOf", "if", "not", "dependencies", "dependentRequired", "dependentSchemas", *REFERENCES}
)
"""What says something by other schemas of the same value. `then` and `else` mean nothing without `if`."""
CONSTRAINING = ASSERTIONS | IN_PLACE_APPLICATORS
"""All that constrains a value."""

TYPES = ("null", "boolean", "number", "string", "array", "object")
