"""Renders a chat with the checkpoint's own chat template.

Templates are Jinja, written for transformers' `apply_chat_template`; they come with the weights and are therefore
foreign code: they run in a sandbox. The environment offers what transformers' does (`raise_exception`, `strftime_now`,
`tojson`, loop controls, the `generation` tag): https://huggingface.co/docs/transformers/chat_templating_writing
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NoReturn

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import InvalidRequest, ModelFailed


class _TemplateRefusal(TemplateError):
    """The template itself refused the conversation."""


class _Generation(Extension):
    """Renders `{% generation %}`, which marks the assistant's text for training, as its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise _TemplateRefusal(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which would change what the model reads.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.filters["tojson"] = _tojson
    return environment


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@lru_cache(maxsize=64)
def variables(source: str) -> frozenset[str]:
    """Return the variables that a template uses, `tools` for example; none for a template with a syntax error."""
    try:
        return frozenset(meta.find_undeclared_variables(_environment().parse(source)))
    except TemplateError:
        return frozenset()


@lru_cache(maxsize=64)
def literal_texts(source: str) -> tuple[str, ...]:
    """Return the texts of a template: those between its tags, and the strings in its expressions."""
    try:
        parsed = _environment().parse(source)
    except TemplateError:
        return ()
    texts = [node.data for node in parsed.find_all(nodes.TemplateData)]
    return (*texts, *_strings(parsed))


@lru_cache(maxsize=64)
def searched_strings(source: str) -> frozenset[str]:
    """Return the strings that a template may search for: those in comparisons, calls, filters, tests, assignments."""
    try:
        parsed = _environment().parse(source)
    except TemplateError:
        return frozenset()
    looking = (nodes.Compare, nodes.Call, nodes.Filter, nodes.Test, nodes.Assign)
    return frozenset(string for node in parsed.find_all(looking) for string in _strings(node))


def _strings(node: nodes.Node) -> list[str]:
    return [const.value for const in node.find_all(nodes.Const) if isinstance(const.value, str)]


def render(
    source: str,
    turns: Sequence[Mapping[str, object]],
    special_tokens: Mapping[str, str],
    *,
    tools: Sequence[Mapping[str, object]] | None = None,
    add_generation_prompt: bool = True,
    arguments: Mapping[str, object] | None = None,
) -> str:
    """Return the prompt for `turns`, messages in the form that templates take; it ends where the answer begins.

    `arguments` are further variables from the caller. Raises `InvalidRequest` when the template refuses the
    conversation (roles that do not alternate, for example), and `ModelFailed` when the template itself is broken.
    """
    try:
        return _compiled(source).render(
            {
                **special_tokens,
                **(arguments or {}),
                "messages": turns,
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
            }
        )
    except _TemplateRefusal as refusal:
        raise InvalidRequest(f"The model's chat template refuses these messages: {refusal}", param="messages") from None
    except Exception as error:  # a template is third-party code: an exception in it is a failure of the model
        if arguments:  # or the fault of arguments that the template does not expect
            raise InvalidRequest(
                f"The model's chat template failed with these arguments: {error}", param="chat_template_kwargs"
            ) from error
        raise ModelFailed(f"The model's chat template failed: {error}") from error
