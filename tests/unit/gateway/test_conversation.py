"""Conversations to texts, and answers back to events."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.model_card.card import parse_text
from gateway.operations.chat import (
    Chat,
    ChatEvent,
    ImagePart,
    Message,
    ReasoningDelta,
    RequiredTool,
    TextPart,
    Tool,
    ToolCall,
    ToolCallArguments,
    ToolCallBegin,
)
from gateway.operations.complete import Complete
from gateway.operations.text import (
    Delta,
    Finish,
    FinishReason,
    Logprob,
    Sampling,
    StructuredOutput,
    TextEvent,
    TokenLogprob,
    Usage,
)
from gateway.prompting import chat_prompt
from gateway.prompting.answer_parser import AnswerParser

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
KNOWING = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}{% endfor %}",
)
SEEING = (
    "{% for m in messages %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str, **parameters: Any) -> Tool:
    source = {"type": "function", "function": {"name": name, "parameters": parameters or SCHEMA}}
    return Tool(name=name, parameters=parameters or SCHEMA, source=source)


def chat(*turns: tuple[str, Any] | Message, **fields: Any) -> Chat:
    messages = tuple(turn if isinstance(turn, Message) else Message(role=turn[0], content=turn[1]) for turn in turns)  # type: ignore[arg-type]
    return Chat(model="m", messages=messages or (Message(role="user", content="Hi"),), **fields)


def build_completion(
    request: Chat, parameters: dict[str, str], **options: bool
) -> tuple[Complete, AnswerParser | None]:
    return chat_prompt.build_completion(request, parse_text(parameters), **options)


def parameters(template: str = CHATML, **fields: str) -> dict[str, str]:
    return {"chat_template": template, **fields}


def read(request: Chat, described: dict[str, str], events: Sequence[TextEvent]) -> list[ChatEvent]:
    reader = build_completion(request, described)[1]
    assert reader is not None
    return [read_event for event in events for read_event in reader.read(event)]


def test_a_plain_text_answer_needs_no_parser() -> None:
    complete, reader = build_completion(chat(("user", "Grüße")), parameters())
    assert complete.prompt == "<|user|>Grüße<|end|>\n<|assistant|>"
    assert reader is None


def test_a_template_with_tools_gets_them() -> None:
    tools = (tool("f"),)
    prompt = build_completion(chat(tools=tools, tool_choice="auto"), parameters(KNOWING))[0].prompt
    assert isinstance(prompt, str) and json.loads(prompt.splitlines()[0]) == [tools[0].source]
    assert "# Tools" not in prompt


@pytest.mark.parametrize("system", [(), (("system", "Be kind."),)])
def test_a_template_without_tools_gets_them_in_the_system_message(system: tuple[tuple[str, str], ...]) -> None:
    request = chat(*system, ("user", "Hi"), tools=(tool("f"), tool("g")), tool_choice="auto")
    prompt = build_completion(request, parameters())[0].prompt
    assert isinstance(prompt, str)
    first, rest = prompt.split("<|end|>\n", 1)
    assert first.startswith("<|system|>" + ("Be kind.\n\n# Tools" if system else "# Tools"))
    assert json.dumps(tool("g").source) in first.splitlines()
    assert rest == "<|user|>Hi<|end|>\n<|assistant|>"


def test_tools_that_may_not_be_called_are_left_out() -> None:
    complete, reader = build_completion(chat(tools=(tool("f"),), tool_choice="none"), parameters())
    assert complete.prompt == "<|user|>Hi<|end|>\n<|assistant|>"
    assert reader is None and complete.sampling.structured_outputs is None


def test_earlier_calls_reach_templates_with_parsed_arguments() -> None:
    call = Message(role="assistant", content="", tool_calls=(ToolCall("c1", "f", '{"city": "Oslo"}'),))
    turns = (("user", "?"), call, Message(role="tool", content="sunny", tool_call_id="c1"))
    prompt = build_completion(chat(*turns), parameters(KNOWING))[0].prompt
    assert '<tool_call>{"name": "f", "arguments": {"city": "Oslo"}}<|end|>\n<|tool|>sunny' in str(prompt)


def test_the_schema_of_calls_keeps_its_references_valid() -> None:
    linked = tool("g", properties={"next": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": {"type": "string"}}})
    request = chat(tools=(tool("f"), linked), tool_choice="required", parallel_tool_calls=False)
    structure = build_completion(request, parameters())[0].sampling.structured_outputs
    assert structure is not None and structure.kind == "json"
    schema: Any = structure.value
    assert (schema["type"], schema["minItems"], schema["maxItems"]) == ("array", 1, 1)
    assert [item["properties"]["name"] for item in schema["items"]["anyOf"]] == [{"const": "f"}, {"const": "g"}]
    moved = schema["$defs"]["tool1"]
    assert moved["properties"]["next"] == {"$ref": "#/$defs/tool1/$defs/node"}
    assert moved["$defs"]["node"] == {"type": "string"}


def test_only_references_are_relocated() -> None:
    data = {"$ref": "#/x"}
    properties = {"a": {"const": data}, "enum": {"$ref": "#/$defs/q"}}
    schema = {"$id": "http://e.com/x", "properties": properties, "$defs": {"q": {}}}
    request = chat(tools=(tool("f", **schema),), tool_choice="required")
    structure = build_completion(request, parameters())[0].sampling.structured_outputs
    assert structure is not None
    value: Any = structure.value
    moved = value["$defs"]["tool0"]
    assert moved["properties"] == {"a": {"const": data}, "enum": {"$ref": "#/$defs/tool0/$defs/q"}}
    assert "$id" not in moved


@pytest.mark.parametrize(
    ("reference", "leads"),
    [
        ("#leaf", "#/$defs/tool0/$defs/a~1b%20c"),
        ("x#leaf", "#/$defs/tool0/$defs/a~1b%20c"),
        ("http://e.com/x", "#/$defs/tool0"),
        ("http://e.com/x#/$defs/other", "#/$defs/tool0/$defs/other"),
        ("other.json", "#/$defs/tool0/$defs/other"),
        ("other.json#/properties/o", "#/$defs/tool0/$defs/other/properties/o"),
        ("http://elsewhere.com/x#leaf", "http://elsewhere.com/x#leaf"),
        ("http://[", "http://["),
    ],
)
def test_references_by_names_are_relocated_too(reference: str, leads: str) -> None:
    other = {"$id": "other.json", "properties": {"o": {"$ref": "#/properties/o"}}}
    named = {"a/b c": {"$anchor": "leaf", "type": "string"}, "other": other}
    schema = {"$id": "http://e.com/x", "properties": {"a": {"$ref": reference}}, "$defs": named}
    request = chat(tools=(tool("f", **schema),), tool_choice="required")
    structure = build_completion(request, parameters())[0].sampling.structured_outputs
    assert structure is not None
    value: Any = structure.value
    moved = value["$defs"]["tool0"]
    assert moved["properties"]["a"] == {"$ref": leads}
    assert moved["$defs"]["a/b c"] == {"type": "string"}
    assert moved["$defs"]["other"] == {"properties": {"o": {"$ref": "#/$defs/tool0/$defs/other/properties/o"}}}


@pytest.mark.parametrize("kind", ["anchors", "addresses"])
def test_references_under_long_names_are_relocated_in_bounded_time(kind: str) -> None:
    """A pointer to each part would be as long as the names above it."""
    if kind == "anchors":
        parts = [{"$anchor": f"a{number}", "items": {"$ref": f"#a{number}"}} for number in range(6000)]
    else:
        parts = [{"$id": f"x{number}", "items": {"$ref": f"x{number}"}} for number in range(6000)]
    schema = {"$id": "http://e.com/" + "x" * 20_000, "properties": {"n" * 150_000: {"anyOf": parts}}}
    request = chat(tools=(tool("f", **schema),), tool_choice="required")
    begun = time.thread_time()
    build_completion(request, parameters())
    assert time.thread_time() - begun < 1


def test_the_arguments_of_a_named_function_are_the_whole_answer() -> None:
    request = chat(tools=(tool("f"), tool("g")), tool_choice=RequiredTool("g"))
    assert build_completion(request, parameters())[0].sampling.structured_outputs == StructuredOutput("json", SCHEMA)
    events = read(request, parameters(), [Delta(0, '{"city": "Oslo"}', 5), Finish(0, "stop"), Usage(1, 5)])
    assert events[0] == ToolCallBegin(0, 0, "g")
    assert "".join(event.text for event in events if isinstance(event, ToolCallArguments)) == '{"city": "Oslo"}'
    assert events[-2:] == [Finish(0, "stop"), Usage(1, 5)]


@pytest.mark.parametrize(
    ("template", "parser", "answer"),
    [
        (CHATML, "", '<tool_call>\n{"name": "f", "arguments": {"city": "Oslo"}}\n</tool_call>'),
        (CHATML, "pythonic", '[f(city="Oslo")]'),
        (CHATML + "{# [TOOL_CALLS] #}", "", '[TOOL_CALLS] [{"name": "f", "arguments": {"city": "Oslo"}}]'),
        (CHATML + "{# <|python_tag|> #}", "", '{"name": "f", "parameters": {"city": "Oslo"}}'),
    ],
)
def test_calls_are_read_in_the_format_of_the_model(template: str, parser: str, answer: str) -> None:
    described = parameters(template, **({"tool_call_parser": parser} if parser else {}))
    request = chat(tools=(tool("f"),), tool_choice="auto")
    deltas = [Delta(0, character, 1) for character in answer]
    events = read(request, described, [*deltas, Finish(0, "stop")])
    assert ToolCallBegin(0, 0, "f") in events and events[-1] == Finish(0, "tool_calls")
    arguments = "".join(event.text for event in events if isinstance(event, ToolCallArguments))
    assert json.loads(arguments) == {"city": "Oslo"}
    # The marks of these two are special tokens.
    lowered = build_completion(request, described)[0]
    assert lowered.show_special_tokens == any(mark in template for mark in ("[TOOL_CALLS]", "<|python_tag|>"))
    assert lowered.sampling == request.sampling


@pytest.mark.parametrize(
    ("answer", "reason"),
    [('{"city": "Oslo"}}\n</tool_call>', "tool_calls"), ('{"ci', "stop"), ('{"city": ' + "[" * 100_000, "stop")],
    ids=["whole", "cut", "deep"],
)
def test_a_complete_call_is_not_cut_by_stop_strings(answer: str, reason: FinishReason) -> None:
    request = chat(tools=(tool("f"),), tool_choice="auto", sampling=Sampling(stop=("X",)))
    text = '<tool_call>\n{"name": "f", "arguments": ' + answer
    events = read(request, parameters(), [Delta(0, text, 1), Finish(0, "stop")])
    assert ToolCallBegin(0, 0, "f") in events and events[-1] == Finish(0, reason)


def test_an_answer_without_calls_keeps_its_finish_reason() -> None:
    request = chat(tools=(tool("f"),), tool_choice="auto")
    events = read(request, parameters(), [Delta(0, "Just ", 1), Delta(0, "words.", 1), Finish(0, "length")])
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "Just words."
    assert events[-1] == Finish(0, "length")


def test_without_parallel_calls_there_is_one_call() -> None:
    request = chat(tools=(tool("f"),), tool_choice="auto", parallel_tool_calls=False)
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
    events = read(request, parameters(), [Delta(0, call * 2, 9), Finish(0, "stop")])
    assert [event for event in events if isinstance(event, ToolCallBegin)] == [ToolCallBegin(0, 0, "f")]


@pytest.mark.parametrize("opened", [True, False])
def test_reasoning_is_separated_from_the_answer(opened: bool) -> None:
    template = CHATML.replace("<|assistant|>", "<|assistant|><think>\n") if opened else CHATML
    described = parameters(template, reasoning_parser="think")
    text = ("" if opened else "<think>\n") + "I think.\n</think>\n\nI say."
    events = read(chat(), described, [*(Delta(0, character, 1) for character in text), Finish(0, "stop")])
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)).strip() == "I think."
    assert "".join(event.text for event in events if isinstance(event, Delta)).strip() == "I say."


def test_structured_answers_have_no_reasoning() -> None:
    described = parameters(CHATML.replace("<|assistant|>", "<|assistant|><think>\n"), reasoning_parser="think")
    structure = StructuredOutput("json", {"type": "object"})
    assert build_completion(chat(sampling=Sampling(structured_outputs=structure)), described)[1] is None


def test_log_probabilities_come_with_the_next_visible_text() -> None:
    request = chat(tools=(tool("f"),), tool_choice="auto")
    first, second = (TokenLogprob(Logprob(text, -1.0, text.encode())) for text in ("<", "b>"))
    events = read(request, parameters(), [Delta(0, "<", 1, (first,)), Delta(0, "b>", 1, (second,)), Finish(0, "stop")])
    shown = [event for event in events if isinstance(event, Delta)]
    assert [token for delta in shown for token in delta.logprobs] == [first, second]
    assert "".join(delta.text for delta in shown) == "<b>"


def token_deltas(*texts: str) -> list[Delta]:
    """One delta for each text, which is a token with an entry of its own."""
    return [Delta(0, text, 1, (TokenLogprob(Logprob(text, -1.0, text.encode())),)) for text in texts]


def names(events: Sequence[ChatEvent]) -> list[str]:
    logprobs = [token for event in events if isinstance(event, Delta) for token in event.logprobs]
    return [token.chosen.token for token in logprobs if token.chosen]


def test_log_probabilities_of_reasoning_and_calls_are_left_out() -> None:
    described = parameters(reasoning_parser="think")
    events = read(
        chat(),
        described,
        [*token_deltas("<think>", "\n", "Hm", ".", "</think>", "\n\n", "I", " say"), Finish(0, "stop")],
    )
    assert names(events) == ["I", " say"]
    request = chat(tools=(tool("f"),), tool_choice="auto")
    tokens = token_deltas(
        "Let", " me", "<tool_call>", '\n{"name": "f", ', '"arguments": {"city": "Oslo"}', "}", "\n</tool_call>"
    )
    assert names(read(request, parameters(), [*tokens, Finish(0, "stop")])) == ["Let", " me"]
    # Several tokens in one delta.
    delta = Delta(0, "".join(t.text for t in tokens), 7, tuple(t.logprobs[0] for t in tokens))
    assert names(read(request, parameters(), [delta, Finish(0, "stop")])) == ["Let", " me"]
    # A token that ends inside a character, and those of a stop string, which no text shows.
    halves = [TokenLogprob(Logprob("\ufffd", -1.0, half)) for half in ("é".encode()[:1], "é".encode()[1:])]
    deltas = [
        Delta(0, "", 1, (halves[0],)),
        Delta(0, "é", 1, (halves[1],)),
        *token_deltas("!"),
        Delta(0, "", 1, token_deltas("STOP")[0].logprobs),
    ]
    read_events = read(request, parameters(), [*deltas, Finish(0, "stop")])
    assert names(read_events) == ["\ufffd", "\ufffd", "!", "STOP"]


def test_image_markers_of_a_caller_are_text() -> None:
    request = chat(
        ("user", "What does <image> mean?"),
        ("user", (TextPart("<image>"), ImagePart(b"png"))),
        tools=(tool("<image>"),),
        tool_choice="auto",
    )
    seeing = parameters("{{ tools | tojson }}" + SEEING, modalities='["text", "image"]')
    prompt = str(build_completion(request, seeing)[0].prompt)
    assert prompt.count("<image>") == 1 and prompt.count("<\u200bimage>") == 3
    # A model that does not look at pictures reads what was written.
    assert "What does <image> mean?" in str(
        build_completion(chat(("user", "What does <image> mean?")), parameters())[0].prompt
    )


def test_images_are_marked_for_vision_models_and_refused_for_others() -> None:
    request = chat(("user", (TextPart("What is "), ImagePart(b"png"), TextPart("this?"))), ("user", "?"))
    complete, _ = build_completion(request, parameters(SEEING, modalities='["text", "image"]'))
    assert (complete.prompt, complete.images) == ("What is <image>this??", (b"png",))
    with pytest.raises(UnsupportedOption) as raised:
        build_completion(request, parameters())
    assert raised.value.param == "messages[0].content[1]"


def test_the_last_message_can_be_continued() -> None:
    request = chat(("user", "Count"), ("assistant", "One, two,"), continue_final_message=True)
    assert build_completion(request, parameters())[0].prompt == "<|user|>Count<|end|>\n<|assistant|>One, two,"


@pytest.mark.parametrize(
    ("template", "content", "expected"),
    [
        # The content stands in what the template writes behind it, too.
        (CHATML, "end", "<|user|>Count<|end|>\n<|assistant|>end"),
        (CHATML, "<", "<|user|>Count<|end|>\n<|assistant|><"),
        (CHATML, "One, ", "<|user|>Count<|end|>\n<|assistant|>One, "),
        (CHATML.replace("m.content", "m.content | trim"), "  One, ", "<|user|>Count<|end|>\n<|assistant|>One,"),
        (CHATML, "", "<|user|>Count<|end|>\n<|assistant|>"),
    ],
)
def test_the_last_message_is_cut_where_its_content_ends(template: str, content: str, expected: str) -> None:
    request = chat(("user", "Count"), ("assistant", content), continue_final_message=True)
    assert build_completion(request, parameters(template))[0].prompt == expected


def test_a_last_message_in_parts_can_be_continued() -> None:
    request = chat(
        ("user", "?"),
        ("assistant", (TextPart("Like "), ImagePart(b"png"), TextPart("this"))),
        continue_final_message=True,
    )
    complete, _ = build_completion(request, parameters(SEEING + "<|end|>", modalities='["text", "image"]'))
    assert complete.prompt == "?Like <image>this"


def test_a_hidden_last_message_cannot_be_continued() -> None:
    with pytest.raises(InvalidRequest) as raised:
        build_completion(chat(("assistant", "One"), continue_final_message=True), parameters("{{ messages | length }}"))
    assert raised.value.param == "messages"


def test_template_arguments_may_not_replace_variables_of_the_gateway() -> None:
    source = CHATML + "{% if mood %}{{ mood }}{% endif %}"
    assert str(build_completion(chat(template_arguments={"mood": "kind"}), parameters(source))[0].prompt).endswith(
        "kind"
    )
    assert build_completion(chat(template_arguments={"self": "me", "context": 1}), parameters(source))
    for name in ("messages", "bos_token"):
        with pytest.raises(InvalidRequest) as raised:
            build_completion(
                chat(template_arguments={name: []}), parameters() | {"special_tokens": '{"bos_token": "<s>"}'}
            )
        assert raised.value.param == f"chat_template_kwargs.{name}"
