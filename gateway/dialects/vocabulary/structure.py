"""What an answer has to look like: OpenAI's `response_format`, and vLLM's structured outputs.

https://platform.openai.com/docs/guides/structured-outputs, https://docs.vllm.ai/en/latest/features/structured_outputs.html
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag
from pydantic_core import from_json

from gateway.dialects.route import UNION_TAG, Wire
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.counting import Bounds, check_texts, check_written
from gateway.operations.text import Structure

Choices = Annotated[list[str], Field(min_length=1, max_length=1024)]

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
"""A schema, which may be `true` or `false` as well, or the text of one."""

_WRITTEN = Bounds(100_000)
"""What a schema may hold that is written as a text."""
LONGEST = 1_000_000
"""Bytes of the JSON of a schema or of choices, or characters of an expression or a grammar."""
_ANY_OBJECT = {"type": "object"}


class JSONSchema(Wire):
    """A named schema. It is enforced, whether `strict` or not."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Wire):
    """OpenAI's way to ask for JSON."""

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
            ]
        }
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None

    def structure(self) -> Structure | None:
        """Return what is asked for. Raises `InvalidRequest` for a schema that is not there."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Structure("json", _ANY_OBJECT, "response_format")
        if self.json_schema is None or self.json_schema.schema_ is None:
            path = "response_format.json_schema" + (".schema" if self.json_schema else "")
            raise InvalidRequest(f"The field '{path}' is required for the type 'json_schema'.", param=path)
        path = "response_format.json_schema.schema"
        check_written(self.json_schema.schema_, LONGEST, param=path)
        return Structure("json", self.json_schema.schema_, path)


class StructuredOutputs(Wire):
    """vLLM's way: exactly one of these. A JSON schema may be written as a string.

    vLLM has more members (`structural_tag`, …); whichever asks for something is refused, lest an answer be free of it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False, "minProperties": 1})

    json_: Annotated[JSONSchemaOrText | None, Field(alias="json")] = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def given(self) -> list[str]:
        """Return the names of what is given."""
        named = {"json": self.json_, "regex": self.regex, "choice": self.choice, "grammar": self.grammar}
        return [name for name, value in named.items() if value is not None] + ["json_object"] * bool(self.json_object)

    def only(self) -> Structure | None:
        """Return what is asked for. Raises `InvalidRequest` where that is more than one thing, and `UnsupportedOption`
        for what is none of ours.
        """
        for name, value in (self.__pydantic_extra__ or {}).items():
            if value is not None and value is not False:
                path = f"structured_outputs.{name[:64]}"
                raise UnsupportedOption(f"'{path}' is not supported yet.", param=path)
        given = self.given()
        if len(given) > 1:
            raise InvalidRequest(f"Only one of {', '.join(given)} can be given.", param="structured_outputs")
        if self.json_ is not None:
            return _bounded("json", _schema(self.json_))
        if self.regex is not None:
            return _bounded("regex", self.regex)
        if self.choice is not None:
            return _bounded("choice", self.choice)
        if self.grammar is not None:
            return _bounded("grammar", self.grammar)
        return Structure("json", _ANY_OBJECT) if self.json_object else None


def _bounded(kind: Literal["json", "regex", "choice", "grammar"], value: object) -> Structure:
    check_written(value, LONGEST, param=f"structured_outputs.{kind}")
    return Structure(kind, value)


def _schema(written: str | bool | dict[str, Any]) -> object:
    if not isinstance(written, str):
        return written
    check_texts([written], _WRITTEN, param="structured_outputs.json")
    try:
        schema = from_json(written)
    except ValueError as error:
        raise InvalidRequest(f"The schema is not JSON: {error}.", param="structured_outputs.json") from None
    if not isinstance(schema, dict | bool):
        raise InvalidRequest("A JSON schema is an object.", param="structured_outputs.json")
    return schema
