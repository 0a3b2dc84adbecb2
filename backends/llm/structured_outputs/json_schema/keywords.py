"""The keywords of JSON Schema, by the form of their values and by the type of value that they constrain.

Source: https://json-schema.org/draft/2020-12/json-schema-validation, and the drafts before it. A keyword in no table
here constrains nothing: `title`, `description`, `default`, `examples`, `deprecated`, `readOnly`, `writeOnly`,
`$comment`, `contentEncoding`, `contentMediaType`, `contentSchema`, OpenAPI's `nullable`, `discriminator`, `example`
and `x-…`.
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
"""Keywords that constrain a value by themselves."""
IN_PLACE_APPLICATORS = frozenset(
    {"allOf", "anyOf", "oneOf", "if", "not", "dependencies", "dependentRequired", "dependentSchemas", *REFERENCES}
)
"""Keywords that apply other schemas to the same value. `then` and `else` mean nothing without `if`."""
CONSTRAINING = ASSERTIONS | IN_PLACE_APPLICATORS
"""All keywords that constrain a value."""

TYPES = ("null", "boolean", "number", "string", "array", "object")
