"""Schemas, with answers that each accepts and answers that it rejects."""

from typing import Any

AB = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
EITHER = {
    "anyOf": [{"properties": {"x": {"type": "null"}}, "required": ["x"]}, {"properties": {"y": {"type": "null"}}}]
}
BASE = {"$defs": {"base": {"type": "object", "properties": {"base": {"type": "null"}}}}}
# A schema, accepted answers, rejected answers.
CASES: list[tuple[Any, list[str], list[str]]] = [
    # objects that name properties are closed, others stay open
    (AB, ["{}", '{"a":1,"b":2}'], ['{"c":1}', '{"a":1,"a":2}', '{"a":1,"\\u0061":2}']),
    (AB | {"additionalProperties": True}, ['{"a":1,"c":2}'], ['{"a":1,"a":2}', '{"\\u0061":"x"}']),
    (AB | {"additionalProperties": {"type": "null"}}, ['{"c":null}'], ['{"c":1}']),
    (AB | {"unevaluatedProperties": True}, ['{"c":1}'], []),
    (AB | {"patternProperties": {"^c": {"type": "integer"}}}, ['{"c1":1}', '{"d":null}'], ['{"c1":null}']),
    (AB | {"required": ["c"]}, ['{"a":1,"c":"x"}'], ['{"a":1}', '{"c":1,"d":1}']),
    (AB | {"minProperties": 1}, ['{"b":1}'], ["{}"]),
    ({"type": "object"}, ['{"c":1}'], []),
    ({"type": "object", "required": ["c"]}, ['{"c":1,"d":2}'], ["{}"]),
    ({"items": AB}, ['[{"a":1}]'], ['[{"c":1}]']),
    # …whichever keyword names them
    ({"allOf": [AB, {"properties": {"c": {"type": "null"}}}]}, ['{"a":1,"b":2,"c":null}'], ['{"c":1}', '{"d":1}']),
    ({"allOf": [AB, {"additionalProperties": True}]}, ['{"a":1,"d":2}'], []),
    (AB | EITHER, ['{"a":1,"x":null}', '{"y":null}', '{"a":1}'], ['{"x":null,"y":null}', '{"z":1}', '{"y":1}']),
    (
        AB | {"allOf": [EITHER, {"anyOf": [{"properties": {"z": {"type": "null"}}}, {"required": ["a"]}]}]},
        ['{"a":1,"x":null,"z":null}', '{"a":1,"y":null}'],
        ['{"x":null,"q":1}', '{"x":null,"y":null}'],
    ),
    (
        BASE | {"$ref": "#/$defs/base", "properties": {"own": {"type": "null"}}},
        ['{"own":null,"base":null}'],
        ['{"c":1}'],
    ),
    (
        BASE | {"properties": {"a": {"$ref": "#/$defs/base"}}, "type": "object"},
        ['{"a":{"base":null}}'],
        ['{"a":{"c":1}}'],
    ),
    (BASE | {"allOf": [{"$ref": "#/$defs/base"}], "description": "x"}, ['{"base":null}'], ['{"c":1}']),
    ({"anyOf": [AB, {"type": "object"}]}, ['{"c":1}'], []),
    (AB | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, ['{"a":1}', '{"b":1}'], ["{}", '{"a":1,"c":1}']),
    (
        AB | {"dependentSchemas": {"a": {"properties": {"c": {"type": "null"}}, "required": ["c"]}}},
        ['{"b":1}', '{"a":1,"c":null}'],
        ['{"a":1}', '{"d":1}'],
    ),
    ({"allOf": [AB], "unevaluatedProperties": False}, ['{"a":1}'], ['{"c":1}']),
    ({"type": "object", "anyOf": [AB, {"required": ["k"]}], "unevaluatedProperties": False}, ['{"a":1}'], ['{"c":1}']),
    ({"type": "object", "required": ["a"], "unevaluatedProperties": {"type": "null"}}, ['{"a":null}'], ['{"a":1}']),
    # keywords that constrain nothing
    ({"type": "string", "format": "ulid", "pattern": "^a$"}, ['"a"'], ['"b"']),
    ({"type": "string", "format": "password"}, ['"x"'], ["1"]),
    (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"2000-02-29"', '"0400-02-29"', '"2023-12-31"'],
        ['"x"', '"2023-02-29"', '"1900-02-29"', '"2023-02-30"', '"2023-04-31"', '"0000-01-01"'],
    ),
    (
        {"type": "string", "format": "time"},
        ['"23:59:59Z"', '"00:00:00.123456789-23:59"'],
        ['"23:59:60Z"', '"24:00:00Z"', '"10:00:00.1234567890Z"', '"10:00:00"'],
    ),
    (
        {"type": ["string", "null"], "format": "date-time"},
        ["null", '"2024-02-29T10:00:00.5+01:00"', '"2023-01-01t10:00:00z"'],
        ['"2023-02-29T10:00:00Z"', '"2023-01-01T10:00:60Z"', '"2023-01-01T10:00:00"'],
    ),
    ({"type": "string", "format": "duration"}, ['"P1Y2M3DT4H"', '"P3W"', '"PT999999S"'], ['"P1000000D"', '"PT"']),
    ({"format": "date", "pattern": "^20"}, ["1", '"2024-02-29"'], ['"1904-02-29"', '"2023-02-29"']),
    ({"format": "date-time", "const": "2016-12-31T23:59:60Z"}, ['"2016-12-31T23:59:60Z"'], ['"2016-12-31T23:59:59Z"']),
    ({"type": "array", "maxItems": 2.0}, ["[1,2]"], ["[1,2,3]"]),
    ({"type": "object", "properties": {"a": {"not": {}}, "b": {}}}, ['{"b":1}'], ['{"a":1}']),
    ({"type": "array", "contains": {}, "maxContains": 2}, ["[1]"], ["[]", "[1,2,3]"]),
    # keywords that are enforced
    ({"oneOf": [{"const": 1}, {"const": 2, "title": "two"}]}, ["1", "2"], ["3"]),
    (
        {
            "oneOf": [
                {"type": "object", "properties": {"k": {"const": "a", "default": "a"}, "n": {"type": "null"}}},
                {"type": "object", "properties": {"k": {"const": "b", "default": "b"}}},
            ]
        },
        ['{"k":"a","n":null}', '{"k":"b"}'],
        ["{}", '{"n":null}', '{"k":"b","n":null}'],
    ),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], **AB}, ['{"a":1}', '{"b":1}'], ["{}", '{"a":1,"b":1}']),
    ({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, ['"a"', '["a"]'], ["1"]),
    ({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True}, ["[]", '["c","a"]'], ['["a","a"]']),
    (
        {"type": "object", "propertyNames": {"const": "a"}, "additionalProperties": {"type": "integer"}},
        ["{}", '{"a":1}'],
        ['{"b":1}', '{"a":"x"}'],
    ),
    (
        {"type": "object", "propertyNames": {"minLength": 2}, "properties": {"a": {}, "bc": {}}},
        ['{"bc":1}'],
        ['{"a":1}'],
    ),
    ({"type": "integer", "maximum": 1e20}, ["9223372036854774784", "-99999999999999999999"], ["1.5"]),
    ({"type": "integer", "maximum": 2**53 + 1}, [str(2**53)], [str(2**53 + 2)]),
    ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, ["6"], ["5"]),
    ({"enum": [1, 2**63, "a"]}, ["1", '"a"'], ["9223372036854775808", "9223372036854775807"]),
    ({"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}, ['"-1.5"', '".5"'], ['"-"', '"."']),
    ({"const": "\x01"}, ['"\\u0001"'], []),
]
