"""Render a conversation with the checkpoint's own chat template.

Templates are Jinja, written for transformers' `apply_chat_template`; they come with the weights and are therefore
foreign code: they run in a sandbox. The environment offers what transformers' does (`raise_exception`, `strftime_now`,
`tojson`, loop controls, the `generation` tag): https://huggingface.co/docs/transformers/chat_templating_writing
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import InvalidRequest, ModelFailed
from gateway.operations.chat import Message


class _Refused(TemplateError):
    """The template itself refused the conversation."""


class _Generation(Extension):
    """`{% generation %}` marks what the assistant said, for training; when rendering it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which would change what the model reads.
    return json.dumps(value, ensure_ascii=False, indent=indent)


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.filters["tojson"] = _tojson
    return environment.from_string(source)


def render(source: str, messages: Sequence[Message], special_tokens: Mapping[str, str]) -> str:
    """Return the prompt for `messages`, ending where the assistant's answer begins.

    Raises `InvalidRequest` when the template refuses the conversation (roles that do not alternate, for example), and
    `ModelFailed` when the template itself is broken.
    """
    turns = [
        {
            "role": message.role,
            "content": message.content,
            **({"name": message.name} if message.name is not None else {}),
            **({"tool_call_id": message.tool_call_id} if message.tool_call_id is not None else {}),
        }
        for message in messages
    ]
    try:
        return _compiled(source).render(messages=turns, add_generation_prompt=True, **special_tokens)
    except _Refused as refusal:
        raise InvalidRequest(f"The model's chat template refuses these messages: {refusal}", param="messages") from None
    except Exception as error:  # a template is foreign code: whatever it raises is the model's fault
        raise ModelFailed(f"The model's chat template failed: {error}") from error
