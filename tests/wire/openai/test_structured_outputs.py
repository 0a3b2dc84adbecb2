"""Structured outputs and log probabilities."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest

from gateway.dialects.openai.completions_responses import ChoiceRenderer, split_logprobs
from gateway.operations.complete import Complete, Completion
from gateway.operations.text import Delta, Finish, Logprob, TextEvent, TokenLogprob
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import (
    CHAT,
    CHAT_STREAM,
    TEXT,
    TEXT_STREAM,
    TextRoute,
    captured_call,
    chat,
    check_error,
    events,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
FIELDS_AND_EXPECTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"response_format": {"type": "json_object"}}, {"json": {"type": "object"}}),
    ({"response_format": FORMAT}, {"json": SCHEMA}),
    ({"structured_outputs": {"json": SCHEMA}}, {"json": SCHEMA}),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, {"json": SCHEMA}),
    ({"structured_outputs": {"json_object": True}}, {"json": {"type": "object"}}),
    ({"structured_outputs": {"regex": r"\d+"}}, {"regex": r"\d+"}),
    ({"structured_outputs": {"choice": ["yes", "no"]}}, {"choice": ["yes", "no"]}),
    ({"structured_outputs": {"grammar": 'start: "a"+'}}, {"grammar": 'start: "a"+'}),
    ({"structured_outputs": {"json": True}}, {"json": True}),
    ({"guided_json": SCHEMA}, {"json": SCHEMA}),
    ({"structured_outputs": {"json": SCHEMA}, "stop": None}, {"json": SCHEMA}),
    ({"guided_regex": "a|b"}, {"regex": "a|b"}),
    ({"guided_choice": ["a"]}, {"choice": ["a"]}),
    ({"guided_grammar": "root ::= [a-z]"}, {"grammar": "root ::= [a-z]"}),
]


@pytest.mark.parametrize("route", [CHAT, CHAT_STREAM, TEXT, TEXT_STREAM], ids=str)
@pytest.mark.parametrize(
    ("fields", "expected"),
    FIELDS_AND_EXPECTED,
    ids=[str(list(fields)) + str(i) for i, (fields, _) in enumerate(FIELDS_AND_EXPECTED)],
)
async def test_a_structure_reaches_the_model(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    sampling = (await captured_call(gateway, triton, route, **fields)).sampling
    assert json.loads(sampling.pop("structured_outputs")) == expected
    assert sampling == route.default_parameters


WRONG = [
    ("response_format.type", {"response_format": {"type": "xml"}}),
    ("response_format.type", {"response_format": {}}),
    ("response_format", {"response_format": "json"}),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
    ("response_format.json_schema.schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    ("structured_outputs", {"structured_outputs": {"regex": "a", "choice": ["a"]}}),
    ("structured_outputs", {"structured_outputs": {}}),
    ("structured_outputs", {"structured_outputs": {"json_object": False}}),
    ("structured_outputs", {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}),
    ("guided_regex", {"structured_outputs": {"choice": ["a"]}, "guided_regex": "a"}),
    ("structured_outputs.json", {"structured_outputs": {"json": "{"}}),
    ("structured_outputs.json", {"structured_outputs": {"json": 5}}),
    ("guided_json", {"guided_json": [1]}),
    ("structured_outputs.choice", {"structured_outputs": {"choice": []}}),
    ("structured_outputs.choice[0]", {"structured_outputs": {"choice": [1]}}),
    ("min_tokens", {"min_tokens": 5, "max_tokens": 4}),
    ("min_tokens", {"min_tokens": -1}),
    ("logit_bias.a", {"logit_bias": {"a": 1}}),
    ("logit_bias.5", {"logit_bias": {"5": 101}}),
    ("logit_bias", {"logit_bias": [1]}),
]


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def format_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def tool(schema: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


LONG = {"type": "object", "properties": {"a" * 300_000: {"type": "string"}}}
MANY = {"enum": [0] * 33_000}
ENUM = {"enum": ["x" * 1000] * 260}
LARGE = [
    ("response_format.json_schema.schema", "262144 characters", format_of(LONG)),
    ("response_format.json_schema.schema", "32768 values", format_of(MANY)),
    ("response_format.json_schema.schema", "100 levels", format_of(nested(101))),
    ("structured_outputs.json", "32768 values", {"structured_outputs": {"json": MANY}}),
    ("structured_outputs.json", "100 levels", {"structured_outputs": {"json": json.dumps(nested(101))}}),
    ("structured_outputs.json", "1048576 characters", {"structured_outputs": {"json": "[" * 1_100_000}}),
    ("guided_json", "262144 characters", {"guided_json": LONG}),
    ("structured_outputs.regex", "262144 characters", {"structured_outputs": {"regex": "a" * 262_145}}),
    ("guided_grammar", "262144 characters", {"guided_grammar": "a" * 262_145}),
    ("structured_outputs.choice", "262144 characters", {"structured_outputs": {"choice": ["a" * 1000] * 263}}),
]


@pytest.mark.parametrize(("param", "most", "fields"), LARGE, ids=[f"{name}-{most}" for name, most, _ in LARGE])
async def test_too_large_schemas_are_refused_by_place(
    gateway: RunningGateway, param: str, most: str, fields: dict[str, Any]
) -> None:
    route = CHAT if "response_format" in fields else TEXT
    response = await gateway.http.post(route.path, json=route.body("hello", **fields))
    assert f"at most {most}" in check_error(response, 400, param=param)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}], ids=str)
async def test_schemas_of_tools_are_bounded_one_by_one_and_together(gateway: RunningGateway, choice: Any) -> None:
    path = "tools[1].function.parameters"
    for schema, most in ((LONG, "262144 characters"), ({"anyOf": [MANY]}, "32768 values"), (nested(101), "100 levels")):
        response = await chat(gateway, tools=[tool({}), tool(schema, "g")], tool_choice=choice)
        assert f"at most {most}" in check_error(response, 400, param=path)
    tools = [tool({}), *(tool(ENUM, f"f{number}") for number in range(5))]
    response = await chat(gateway, tools=tools, tool_choice=choice)
    assert "schemas of all tools" in check_error(response, 400, param="tools[5].function.parameters")


async def test_the_largest_schemas_reach_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    for schema in (nested(90), {"enum": [0] * 32_000}, ENUM, {"type": "object", "properties": {"a" * 250_000: True}}):
        sampling = (await captured_call(gateway, triton, CHAT, **format_of(schema))).sampling
        assert json.loads(sampling["structured_outputs"]) == {"json": schema}


async def test_anchors_in_schemas_of_tools_stay_valid(gateway: RunningGateway, triton: FakeTriton) -> None:
    """Two functions may have the same anchors; a named function is its schema alone."""
    schema = {"type": "object", "properties": {"a": {"$ref": "#leaf"}}, "$defs": {"l": {"$anchor": "leaf"}}}
    tools = [tool(schema), tool(schema, "g")]
    call = await captured_call(gateway, triton, tools=tools, tool_choice="required")
    definitions = json.loads(call.sampling["structured_outputs"])["json"]["$defs"]
    for name in ("tool0", "tool1"):
        assert definitions[name]["properties"] == {"a": {"$ref": f"#/$defs/{name}/$defs/l"}}
    call = await captured_call(
        gateway, triton, tools=tools, tool_choice={"type": "function", "function": {"name": "g"}}
    )
    assert json.loads(call.sampling["structured_outputs"])["json"] == schema


@pytest.mark.parametrize("route", [CHAT, TEXT], ids=str)
@pytest.mark.parametrize(("param", "fields"), WRONG, ids=[f"{param}-{i}" for i, (param, _) in enumerate(WRONG)])
async def test_invalid_values_are_named_by_place(
    gateway: RunningGateway, route: TextRoute, param: str, fields: dict[str, Any]
) -> None:
    response = await gateway.http.post(route.path, json=route.body("hello", **fields))
    param_of_error = response.json()["error"]["param"]
    check_error(response, 400, param=param_of_error)
    assert param_of_error.startswith(param), param_of_error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": FORMAT}, "response_format.json_schema.schema"),
        ({"guided_json": SCHEMA}, "guided_json"),
        ({"structured_outputs": {"json": SCHEMA}}, "structured_outputs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}, "tools"),
    ],
)
async def test_unenforceable_structures_name_the_requested_field(
    gateway: RunningGateway, fields: dict[str, Any], param: str
) -> None:
    assert "no such type" in check_error(await chat(gateway, "strict", **fields), 400, param=param)


@pytest.mark.parametrize(
    ("route", "fields", "arrives"),
    [
        (CHAT, {"logprobs": True}, {"logprobs": 0}),
        (CHAT, {"logprobs": True, "top_logprobs": 20}, {"logprobs": 20}),
        (CHAT, {"logit_bias": {"50": -100, "7": 1.5}}, {"logit_bias": {"50": -100, "7": 1.5}}),
        (CHAT, {"min_tokens": 3}, {"min_tokens": 3}),
        (TEXT, {"logprobs": 5}, {"logprobs": 5}),
        (TEXT, {"logprobs": 0}, {"logprobs": 0}),
        (TEXT, {"logprobs": 2, "echo": True}, {"logprobs": 2, "prompt_logprobs": 2}),
        (TEXT, {"echo": True}, {}),
    ],
)
async def test_log_probability_options_reach_the_model(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, fields: dict[str, Any], arrives: dict[str, Any]
) -> None:
    call = await captured_call(gateway, triton, route, **fields)
    assert call.sampling == route.default_parameters | arrives
    assert call.flag("return_logprobs") == ("logprobs" in arrives)


@pytest.mark.parametrize(
    ("route", "param", "fields"),
    [
        (CHAT, "top_logprobs", {"top_logprobs": 3}),
        (CHAT, "top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        (CHAT, "logprobs", {"logprobs": 3}),
        (TEXT, "logprobs", {"logprobs": True}),
        (TEXT, "logprobs", {"logprobs": 21}),
        (TEXT, "echo", {"echo": 1}),
    ],
)
async def test_invalid_log_probability_options_are_refused(
    gateway: RunningGateway, route: TextRoute, param: str, fields: dict[str, Any]
) -> None:
    check_error(await gateway.http.post(route.path, json=route.body("hello", **fields)), 400, param=param)


HI = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
HO = {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}
HALF = {"token": " \ufffd", "logprob": -3.25, "bytes": [32, 240, 159]}
REST = {"token": "\ufffd", "logprob": -0.25, "bytes": [145, 141]}
CONTENT = [
    {**HI, "top_logprobs": [HI, HO]},
    {**HALF, "top_logprobs": [HI, HO]},
    {**REST, "top_logprobs": [REST]},
]


async def test_log_probabilities_of_a_chat(gateway: RunningGateway) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
    (choice,) = (await chat(gateway, "odds", **fields)).json()["choices"]
    assert choice["logprobs"] == {"content": CONTENT, "refusal": None}
    response = await gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body("odds", **fields))
    choices = [chunk["choices"][0] for chunk in events(response)[:-1]]
    logprobs = [(choice["delta"]["content"], choice["logprobs"]["content"]) for choice in choices if choice["logprobs"]]
    assert logprobs == [("Hi", CONTENT[:1]), (" 👍", CONTENT[1:])]


async def test_log_probabilities_of_a_completion(gateway: RunningGateway) -> None:
    expected = {
        "tokens": ["Hi", "bytes:\\x20\\xf0\\x9f", "bytes:\\x91\\x8d"],
        "token_logprobs": [-0.5, -3.25, -0.25],
        "top_logprobs": [
            {"Hi": -0.5, "Ho": -1.5},
            {"Hi": -0.5, "Ho": -1.5, "bytes:\\x20\\xf0\\x9f": -3.25},
            {"bytes:\\x91\\x8d": -0.25},
        ],
        "text_offset": [0, 2, 3],
    }
    (choice,) = (await gateway.http.post(TEXT.path, json=TEXT.body("odds", logprobs=2))).json()["choices"]
    assert (choice["text"], choice["logprobs"]) == ("Hi 👍", expected)
    response = await gateway.http.post(TEXT_STREAM.path, json=TEXT_STREAM.body("odds", logprobs=2))
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in events(response)[:-1] if chunk["choices"][0]["logprobs"]]
    assert {key: [value for entry in logprobs for value in entry[key]] for key in expected} == expected


async def test_offsets_of_an_echo_that_a_stop_string_cut() -> None:
    """Tokens of the stop string have entries, but their text is hidden."""
    texts = ("A", "b", " c", " ST", "OP")
    entries = [TokenLogprob(Logprob(t, -1.0 if i else None, t.encode()), is_prompt=i < 2) for i, t in enumerate(texts)]
    for text in ("Ab c", "Ab c STOP", "Ab c S"):
        choices = ChoiceRenderer([Complete(model="m", prompt="Ab", echo=True)], logprobs=True)
        logprobs = choices.render(0, text, entries, "stop")["logprobs"]
        assert (logprobs["tokens"], logprobs["text_offset"]) == (list(texts), [0, 1, 2, 4, 7])


@pytest.mark.parametrize("length", [0, 1, 500, 501, 1700])
async def test_long_log_probabilities_are_rendered_in_pieces(length: int) -> None:
    asked = Complete(model="m", prompt="é" * 600, echo=True)
    tokens = [TokenLogprob(Logprob("é", -1.0, "é".encode()), is_prompt=i < 600) for i in range(length)]
    whole = await ChoiceRenderer([asked], logprobs=True).whole(0, Completion("é" * length, "stop", tokens))
    expected = ChoiceRenderer([asked], logprobs=True).render(0, "é" * length, tokens, "stop")
    assert json.loads(orjson.dumps(whole)) == expected


async def test_log_probabilities_of_a_stream_come_in_pieces() -> None:
    tokens = tuple(TokenLogprob(Logprob(str(i), -1.0, b"x")) for i in range(1700))
    events_of_model: list[TextEvent] = [Delta(1, "a", 3, tokens[:500]), Delta(1, "b", 1700, tokens), Finish(1, "stop")]

    async def events() -> AsyncGenerator[TextEvent]:
        for event in events_of_model:
            yield event

    first, *pieces, last = [event async for event in split_logprobs(events())]
    assert (first, last) == (events_of_model[0], events_of_model[2])
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    assert [(piece.index, piece.text, piece.tokens) for piece in deltas] == [(1, "b", 1700)] + [(1, "", 0)] * 3
    assert tuple(token for piece in deltas for token in piece.logprobs) == tokens


async def test_log_probabilities_of_prompts_are_bounded_together(gateway: RunningGateway) -> None:
    """Each entry takes about 150 bytes, in each of 128 answers."""
    most = {"echo": True, "logprobs": 19, "prompt": "x" * 1000}
    for fields in ({"n": 128}, {"prompt": "x" * 100_001}, {"prompt": ["x" * 1000] * 101}, {"prompt": [1] * 100_001}):
        check_error(
            await gateway.http.post(TEXT.path, json={"model": "hello", **most, **fields}), 413, param="logprobs"
        )
    response = await gateway.http.post(TEXT.path, json={"model": "hello", **most, "prompt": "x" * 100_000})
    assert response.status_code == 200


async def test_an_echo_begins_with_the_prompt(gateway: RunningGateway) -> None:
    for route in (TEXT, TEXT_STREAM):
        response = await gateway.http.post(route.path, json=route.body("hello", "Say:", echo=True))
        assert route.text(response) == "Say:\n\nHello there, how may I assist you today?"


async def test_several_prompts_are_answered_in_order(gateway: RunningGateway, triton: FakeTriton) -> None:
    body = {"model": "echo", "prompt": ["one", "two " * 40, "three"]}
    answer = (await gateway.http.post(TEXT.path, json=body)).json()
    assert [(c["index"], c["text"], c["finish_reason"]) for c in answer["choices"]] == [
        (i, text, "stop") for i, text in enumerate(body["prompt"])
    ]
    assert answer["usage"]["prompt_tokens"] == 27
    response = await gateway.http.post(
        TEXT.path, json={**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    *chunks, usage, done = events(response)
    texts = ["", "", ""]
    for choice in (chunk["choices"][0] for chunk in chunks):
        texts[choice["index"]] += choice["text"]
    assert (texts, usage["usage"]["prompt_tokens"], done) == (body["prompt"], 27, "[DONE]")
    trio = (await gateway.http.post(TEXT.path, json={"model": "trio", "prompt": ["a", "b"], "n": 3})).json()
    assert [(c["index"], c["text"]) for c in trio["choices"]] == list(enumerate(["abc", "1", "xyz"] * 2))


async def test_the_failure_of_one_prompt_fails_the_request(gateway: RunningGateway) -> None:
    response = await gateway.http.post(TEXT.path, json={"model": "broken", "prompt": ["a", "b"]})
    check_error(response, 502, "server_error", "model_failed")


@pytest.mark.parametrize("prompt", [[1, 2, 70000], [[1, 2, 70000]]])
async def test_a_prompt_of_token_ids(gateway: RunningGateway, triton: FakeTriton, prompt: Any) -> None:
    call = await captured_call(gateway, triton, TEXT, prompt=prompt)
    assert [int(token) for token in call.tensors["token_ids"]] == [1, 2, 70000]
    assert "text_input" not in call.tensors


@pytest.mark.parametrize(
    ("param", "prompt"),
    [
        ("prompt", []),
        ("prompt", [[]]),
        ("prompt", {}),
        ("prompt[1]", ["a", 1]),
        ("prompt[1]", [1, "a"]),
        ("prompt[1]", [1, -1]),
        ("prompt[0]", [2**31]),
        ("prompt[0]", [True]),
        ("prompt[1][0]", [[1], [1.5]]),
        ("prompt", ["a"] * 129),
        ("prompt[0]", [None]),
    ],
)
async def test_invalid_prompts_are_refused(gateway: RunningGateway, param: str, prompt: Any) -> None:
    response = await gateway.http.post(TEXT.path, json={"model": "hello", "prompt": prompt})
    found = response.json()["error"]["param"]
    check_error(response, 400, param=found)
    assert found.startswith(param), found
