"""Parameters: each reaches the model under the right name, or an error names it."""

from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import (
    CHAT,
    CHAT_STREAM,
    TEXT,
    TEXT_ROUTES,
    TextRoute,
    captured_call,
    check_error,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

SENT_AND_EXPECTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"temperature": 0}, {"temperature": 0}),
    ({"temperature": 2.0}, {"temperature": 2.0}),
    ({"top_p": 0.1}, {"top_p": 0.1}),
    ({"top_p": 1}, {"top_p": 1}),
    ({"top_p": 0}, {"temperature": 0}),
    ({"top_p": 0.0, "temperature": 1.5}, {"temperature": 0}),
    ({"top_k": 40}, {"top_k": 40}),
    ({"top_k": -1}, {"top_k": -1}),
    ({"top_k": 0}, {"top_k": 0}),
    ({"min_p": 0.05}, {"min_p": 0.05}),
    ({"seed": 0}, {"seed": 0}),
    ({"seed": 2**63 - 1}, {"seed": 2**63 - 1}),
    ({"seed": -1}, {"seed": -1}),
    ({"presence_penalty": -2}, {"presence_penalty": -2}),
    ({"frequency_penalty": 1.5}, {"frequency_penalty": 1.5}),
    ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    ({"ignore_eos": False}, {}),
    ({"stop": "\n"}, {"stop": ["\n"]}),
    ({"stop": ["a", "b", "c", "👍"]}, {"stop": ["a", "b", "c", "👍"]}),
    ({"user": "u-1"}, {}),
    (dict.fromkeys(["max_tokens", "temperature", "top_p", "seed", "stop", "n", "presence_penalty", "user"]), {}),
]


def describe(case: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in case.items())[:40] or "nothing"


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
@pytest.mark.parametrize(("sent", "expected"), SENT_AND_EXPECTED, ids=[describe(sent) for sent, _ in SENT_AND_EXPECTED])
async def test_sampling(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, sent: dict[str, Any], expected: dict[str, Any]
) -> None:
    sampling = (await captured_call(gateway, triton, route, **sent)).sampling
    if isinstance(sampling.get("stop"), str):
        sampling["stop"] = [sampling["stop"]]
    assert sampling == route.default_parameters | expected


@pytest.mark.parametrize("route", TEXT_ROUTES, ids=str)
async def test_n(gateway: RunningGateway, triton: FakeTriton, route: TextRoute) -> None:
    assert (await captured_call(gateway, triton, route, "trio", n=3)).sampling == {"n": 3, **route.default_parameters}


async def test_max_completion_tokens_is_max_tokens_and_wins(gateway: RunningGateway, triton: FakeTriton) -> None:
    assert (await captured_call(gateway, triton, max_completion_tokens=7)).sampling == {"max_tokens": 7}
    assert (await captured_call(gateway, triton, max_tokens=3, max_completion_tokens=7)).sampling == {"max_tokens": 7}
    assert (await captured_call(gateway, triton, max_tokens=3, max_completion_tokens=None)).sampling == {
        "max_tokens": 3
    }


async def test_the_model_reports_counts_and_reasons_and_not_the_prompt(
    gateway: RunningGateway, triton: FakeTriton
) -> None:
    for route in TEXT_ROUTES:
        call = await captured_call(gateway, triton, route)
        for flag in ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"):
            assert call.flag(flag), flag
        assert call.flag("exclude_input_in_output", default=call.flag("stream"))


async def test_the_template_of_the_model_renders_the_messages(gateway: RunningGateway, triton: FakeTriton) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}], "name": "ann"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "<b>&amp; 'quoted' \"twice\" {{ 7*7 }}</b>"},
    ]
    assert (await captured_call(gateway, triton, messages=messages)).prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n"
        "<|im_start|>user\n<b>&amp; 'quoted' \"twice\" {{ 7*7 }}</b><|im_end|>\n<|im_start|>assistant\n"
    )


async def test_text_parts_follow_one_another(gateway: RunningGateway, triton: FakeTriton) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    for role in ("system", "developer", "user", "assistant"):
        messages = [{"role": role, "content": parts}, {"role": "user", "content": "?"}]
        prompt = (await captured_call(gateway, triton, messages=messages)).prompt
        assert "\none\ntwo<|im_end|>" in prompt


async def test_every_role_reaches_the_template(gateway: RunningGateway, triton: FakeTriton) -> None:
    messages = [
        {"role": "developer", "content": "Instructions of a developer."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me look."},
        {"role": "tool", "content": "Sunny.", "tool_call_id": "call_1"},
    ]
    prompt = (await captured_call(gateway, triton, messages=messages)).prompt
    assert all(message["content"] in prompt for message in messages)
    # Few templates know developers; what they say is the system's word.
    assert prompt.startswith("<|im_start|>system\nInstructions of a developer.")


async def test_calls_of_the_past_are_rendered(gateway: RunningGateway, triton: FakeTriton) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "Sunny.", "tool_call_id": "call_1"},
    ]
    prompt = (await captured_call(gateway, triton, messages=messages)).prompt
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>' in prompt
    assert "<|im_start|>user\n<tool_response>\nSunny.\n</tool_response><|im_end|>" in prompt


async def test_a_prompt_is_passed_on_untouched(gateway: RunningGateway, triton: FakeTriton) -> None:
    prompt = "<|im_start|> raw \x00 text {{ 1 }}\n"
    assert (await captured_call(gateway, triton, TEXT, prompt=prompt)).prompt == prompt
    assert (await captured_call(gateway, triton, TEXT, prompt=["only one"])).prompt == "only one"


async def test_stream_options_ask_for_usage(gateway: RunningGateway) -> None:
    for options in ({"include_usage": False}, {}, None):
        response = await gateway.http.post(CHAT_STREAM.path, json=CHAT_STREAM.body("hello", stream_options=options))
        assert response.status_code == 200
        assert '"choices":[]' not in response.text.replace(" ", "")


NOT_CARRIED_BY_CHATS = [
    ("moderation", {"model": "omni-moderation-latest"}),
    ("chat_template", "{{ messages }}"),
    ("add_generation_prompt", False),
    ("bad_words", ["x"]),
    ("allowed_token_ids", [1]),
    ("early_stopping", "never"),
    ("include_stop_str_in_output", True),
    ("length_penalty", 1.5),
    ("logits_processors", ["x"]),
    ("prompt_logprobs", 0),
    ("return_token_ids", True),
    ("return_tokens_as_token_ids", True),
    ("spaces_between_special_tokens", False),
    ("structural_tag", "{}"),
    ("truncate_prompt_tokens", -1),
    ("vllm_xargs", {"a": 1}),
    ("add_special_tokens", True),
    ("documents", [{"text": "x"}]),
    ("mm_processor_kwargs", {"a": 1}),
    ("structured_outputs.structural_tag", "{}"),
    ("structured_outputs.disable_any_whitespace", True),
]
NOT_CARRIED_BY_COMPLETIONS = [
    ("suffix", "the end"),
    ("best_of", 3),
    ("use_beam_search", True),
    ("truncate_prompt_tokens", 5),
    ("add_special_tokens", False),
    ("prompt_embeds", "x"),
]
CASES = [(CHAT, *case) for case in NOT_CARRIED_BY_CHATS] + [(TEXT, *case) for case in NOT_CARRIED_BY_COMPLETIONS]


@pytest.mark.parametrize(("route", "name", "value"), CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}"[:60] for c in CASES])
async def test_what_is_not_carried_is_refused_by_name(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute, name: str, value: Any
) -> None:
    before = len(triton.calls)
    field, _, member = name.partition(".")
    fields: dict[str, Any] = {field: {"regex": "a", member: value} if member else value}
    response = await gateway.http.post(route.path, json=route.body("hello", **fields))
    sentence = check_error(response, 400, code="unsupported_parameter", param=name)
    assert name in sentence
    assert len(triton.calls) == before


NO_OPS = [
    ("tools", []),
    ("tools", None),
    ("tool_choice", "auto"),
    ("tool_choice", "none"),
    ("functions", []),
    ("function_call", "none"),
    ("response_format", {"type": "text"}),
    ("logprobs", False),
    ("top_logprobs", None),
    ("logit_bias", {}),
    ("modalities", ["text"]),
    ("modalities", []),
    ("stop", []),
    ("audio", None),
    ("prediction", None),
    ("prediction", {"type": "content", "content": "x"}),
    ("moderation", None),
    ("prompt_cache_options", {"mode": "explicit"}),
    ("prompt_cache_retention", "24h"),
    ("stream_options", None),
    ("n", 1),
    ("allowed_token_ids", None),
    ("bad_words", []),
    ("include_stop_str_in_output", False),
    ("length_penalty", 1.0),
    ("spaces_between_special_tokens", True),
    ("add_special_tokens", False),
    ("documents", []),
]
IGNORED: dict[str, Any] = {
    **{"wallet": "0x1", "signature": "s", "hash": "h", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
    **{"parallel_tool_calls": True, "safety_identifier": "x", "prompt_cache_key": "k", "verbosity": "low"},
    **{"made_up_by_nobody_else": {"deep": [1, {"er": None}]}},
}


@pytest.mark.parametrize(("name", "value"), NO_OPS, ids=[f"{name}-{value}" for name, value in NO_OPS])
async def test_what_asks_for_nothing_passes(gateway: RunningGateway, triton: FakeTriton, name: str, value: Any) -> None:
    assert (await captured_call(gateway, triton, **{name: value})).sampling in ({}, {"n": 1})


@pytest.mark.parametrize(("name", "value"), [("echo", False), ("suffix", None), ("best_of", 1), ("logprobs", None)])
async def test_what_asks_for_nothing_passes_in_completions(
    gateway: RunningGateway, triton: FakeTriton, name: str, value: Any
) -> None:
    assert (await captured_call(gateway, triton, TEXT, **{name: value})).sampling == TEXT.default_parameters


async def test_unknown_fields_are_ignored(gateway: RunningGateway, triton: FakeTriton) -> None:
    for route in TEXT_ROUTES:
        call = await captured_call(gateway, triton, route, **IGNORED)
        assert call.sampling == route.default_parameters
        assert not set(call.tensors) & set(IGNORED)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url"])
@for_each_dialect
async def test_parts_that_a_model_does_not_take_are_refused_by_place(
    gateway: RunningGateway, dialect: WireDialect, kind: str
) -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": kind, kind: {"url": "data:,", "data": "", "format": "wav"}}]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": parts}]
    response = await gateway.http.post(dialect.chat.path, json=dialect.chat.body("hello", messages=messages))
    check_error(response, 400, code="unsupported_parameter", param="messages[1].content[1]")
