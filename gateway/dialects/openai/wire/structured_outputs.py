"""Structured outputs: OpenAI's `response_format`, and vLLM's `structured_outputs`.

https://platform.openai.com/docs/guides/structured-outputs, https://docs.vllm.ai/en/latest/features/structured_outputs.html
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag
from pydantic_core import from_json

from gateway.dialects.openai.wire import schema_limits
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.wire_model import UNION_TAG, WireModel
from gateway.operations.text import StructuredOutput

ChoiceList = Annotated[list[str], Field(min_length=1, max_length=1024)]

JSONSchemaOrText = Annotated[
    Annotated[dict[str, Any], Tag(UNION_TAG + "schema")]
    | Annotated[bool, Tag(UNION_TAG + "boolean")]
    | Annotated[str, Tag(UNION_TAG + "text")],
    Discriminator(
        lambda value: (
            UNION_TAG + ("schema" if isinstance(value, dict) else "boolean" if isinstance(value, bool) else "text")
        )
    ),
]
"""A JSON schema: an object, `true` or `false`, or the text of one of these."""

_ANY_OBJECT = {"type": "object"}
# The text of a schema has quotes, spaces and escapes in addition to the characters that are counted.
_MAX_SCHEMA_TEXT = 4 * schema_limits.MAX_CHARACTERS


class JSONSchema(WireModel):
    """A named schema. It is enforced with and without `strict`."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(WireModel):
    """OpenAI's request for JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"type": {"enum": ["text", "json_object"]}}},
                {
                    "properties": {
                        "json_schema": {
                            "type": "object",
                            "properties": {"schema": {"type": "object"}},
                            "required": ["schema"],
                        }
                    },
                    "required": ["json_schema"],
                },
                {"properties": {"schema": {"type": "object"}}, "required": ["schema"]},
            ]
        }
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """The schema of both JSON types as llama.cpp and others have it."""

    def to_structure(self) -> StructuredOutput | None:
        """Return the structure, None for plain text. Raises `InvalidRequest` for a missing or too large schema."""
        if self.type == "text":
            return None
        if self.schema_ is not None and (self.type == "json_object" or self.json_schema is None):
            schema_limits.check(self.schema_, "response_format.schema")
            return StructuredOutput("json", self.schema_, "response_format.schema")
        if self.type == "json_object":
            return StructuredOutput("json", _ANY_OBJECT, "response_format")
        if self.json_schema is None or self.json_schema.schema_ is None:
            path = "response_format.json_schema" + (".schema" if self.json_schema else "")
            raise InvalidRequest(f"The field '{path}' is required for the type 'json_schema'.", param=path)
        path = "response_format.json_schema.schema"
        schema_limits.check(self.json_schema.schema_, path)
        return StructuredOutput("json", self.json_schema.schema_, path)


class StructuredOutputs(WireModel):
    """vLLM's request for a structure: exactly one of these fields. A JSON schema may be a string.

    vLLM has more fields (`structural_tag`, …). A request with one of them is refused: the answer would not follow it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False, "minProperties": 1})

    json_: Annotated[JSONSchemaOrText | None, Field(alias="json")] = None
    regex: str | None = None
    choice: ChoiceList | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def given_names(self) -> list[str]:
        """Return the names of the fields that have a value."""
        named = {"json": self.json_, "regex": self.regex, "choice": self.choice, "grammar": self.grammar}
        return [name for name, value in named.items() if value is not None] + ["json_object"] * bool(self.json_object)

    def to_structure(self, prefix: str = "structured_outputs.") -> StructuredOutput | None:
        """Return the structure, None where no field has a value. In errors, `prefix` stands before a field's name.

        Raises `InvalidRequest` for more than one field or a value that is too large, and `UnsupportedOption` for an
        unsupported field.
        """
        for name, value in (self.__pydantic_extra__ or {}).items():
            if value is not None and value is not False:
                path = f"structured_outputs.{name[:64]}"
                raise UnsupportedOption(f"'{path}' is not supported yet.", param=path)
        given = self.given_names()
        if len(given) > 1:
            raise InvalidRequest(f"Only one of {', '.join(given)} is allowed.", param="structured_outputs")
        if self.json_ is not None:
            return StructuredOutput("json", _parse_schema(self.json_, prefix + "json"))
        if self.regex is not None:
            schema_limits.check_text(self.regex, prefix + "regex")
            return StructuredOutput("regex", self.regex)
        if self.choice is not None:
            schema_limits.check_texts(self.choice, prefix + "choice")
            return StructuredOutput("choice", self.choice)
        if self.grammar is not None:
            schema_limits.check_text(self.grammar, prefix + "grammar")
            return StructuredOutput("grammar", self.grammar)
        return StructuredOutput("json", _ANY_OBJECT) if self.json_object else None


def _parse_schema(written: str | bool | dict[str, Any], path: str) -> object:
    schema: object = written
    if isinstance(written, str):
        schema_limits.check_text(written, path, _MAX_SCHEMA_TEXT)
        try:
            schema = from_json(written)
        except ValueError as error:
            raise InvalidRequest(f"The schema is not valid JSON: {error}.", param=path) from None
        if not isinstance(schema, dict | bool):
            raise InvalidRequest("A JSON schema must be an object or a boolean.", param=path)
    schema_limits.check(schema, path)
    return schema
