"""Our rendering against transformers' own, on templates that use what published ones use."""

from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from gateway.errors import InvalidRequest, ModelFailed
from gateway.prompting.chat_template import render

TEMPLATES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def conversation(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = {
    "one": conversation(("user", "Hello!")),
    "system": conversation(("system", 'Be <brief> & "kind".'), ("user", "Was ist 2+2?")),
    "long": conversation(
        ("system", "s"),
        ("user", "  padded \n"),
        ("assistant", " yes \n"),
        ("user", "日本語 👩‍👩‍👧 שלום {{ 7 * 7 }} {% if x %}"),
    ),
}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_renders_as_transformers_does(template: Path, name: str) -> None:
    messages = CONVERSATIONS[name]
    source = template.read_text()
    expected, _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=True, **TOKENS)
    assert render(source, messages, TOKENS) == expected[0]


def test_tool_messages_reach_the_template() -> None:
    source = (Path(__file__).parent / "templates" / "headers_with_date.jinja").read_text()
    messages = [*conversation(("user", "Weather?")), {"role": "tool", "content": '{"t": "20 °C"}'}]
    assert '"{\\"t\\": \\"20 °C\\"}"<|eot_id|>' in render(source, messages, TOKENS)


def test_a_refusal_of_the_template_is_the_callers_error() -> None:
    source = (Path(__file__).parent / "templates" / "alternating.jinja").read_text()
    with pytest.raises(InvalidRequest, match="Roles must alternate") as raised:
        render(source, conversation(("user", "a"), ("user", "b")), TOKENS)
    assert raised.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{% for",
        "{{ messages.nothing.at_all }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% set _ = messages.append(1) %}",
        "{{ range(10**9) | list | length }}",
    ],
)
def test_a_broken_or_hostile_template_is_the_models_error(source: str) -> None:
    with pytest.raises(ModelFailed, match="chat template failed"):
        render(source, conversation(("user", "a")), TOKENS)
