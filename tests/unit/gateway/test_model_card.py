"""Model cards: the parameters of `config.pbtxt`, typed; and the calls that codecs make of requests with them."""

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.model_card.card import ModelCard, TextCard, parse, parse_text
from gateway.model_card.image_limits import ImageLimits
from gateway.operations.chat import Chat, ImagePart, Message
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, Sampling, StructuredOutput, Usage
from gateway.signatures.registry import RECOGNIZED_SIGNATURES, SIGNATURES
from gateway.triton.model_config import ModelConfig

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def card(signature: str = "vllm", *operations: str, **parameters: str) -> ModelCard:
    known = SIGNATURES[signature]
    described = {"signature": signature, "operations": json.dumps(operations), "chat_template": TEMPLATE, **parameters}
    return parse(ModelConfig("m", described, {**known.inputs, **known.distinctive_inputs}, known.outputs, b""))


def test_a_card_is_parsed_from_the_parameters() -> None:
    parsed = card(
        "vllm",
        "chat",
        served_name="llama",
        owned_by="lab",
        created="17",
        modalities='["text", "image"]',
        special_tokens='{"bos_token": "<s>"}',
        control_tokens='["<s>", "</s>"]',
        special_tokens_in_content="recognised",
        add_bos_token="true",
        context_length="4096",
        accumulate_tokens="True",
        text="delta",
    )
    assert (parsed.name, parsed.owned_by, parsed.created, parsed.operations) == (
        "llama",
        "lab",
        17,
        frozenset({"chat"}),
    )
    text = parsed.text
    assert text.supports_images and text.add_bos_token and text.recognizes_special_tokens and text.accumulates_tokens
    assert (text.special_tokens, text.control_tokens) == ({"bos_token": "<s>"}, ("<s>", "</s>"))
    assert (text.text_mode, text.default_max_tokens, text.context_length) == ("delta", 4096, 4096)
    assert parse_text({"context_length": "4096", "max_tokens": "7"}).default_max_tokens == 7


def test_a_card_has_defaults() -> None:
    parsed = card("embedding", "embed")
    assert (parsed.name, parsed.owned_by, parsed.created, parsed.image) == ("m", "tritonic", 0, ImageLimits())
    text = parse_text({})
    assert {name: getattr(text, name) for name in vars(text)} == {
        name: getattr(TextCard(), name) for name in vars(text)
    }
    assert not text.supports_images and text.default_max_tokens is None


def test_only_models_that_generate_images_have_limits_of_images() -> None:
    assert card("image", "generate_image", max_images="2").image.max_images == 2
    assert card("vllm", "complete", max_images="many").image == ImageLimits()
    with pytest.raises(ValueError):
        card("image", "edit_image", max_images="many")


@pytest.mark.parametrize("missing", ["signature", "operations"])
def test_a_card_needs_a_signature_and_operations(missing: str) -> None:
    described = {"signature": "vllm", "operations": "[]"}
    del described[missing]
    with pytest.raises(KeyError, match=missing):
        parse(ModelConfig("m", described, {}, {}, b""))


def test_every_signature_carries_operations_and_some_are_recognised() -> None:
    text = ("vllm", "llmapi", "tensorrt_llm")
    assert tuple(name for name in RECOGNIZED_SIGNATURES if name in text) == text
    assert not {"embedding", "transcription", "image"} & set(RECOGNIZED_SIGNATURES)
    expected = {
        **{name: {"chat", "complete"} for name in text},
        **{"embedding": {"embed"}, "transcription": {"transcribe"}, "image": {"generate_image", "edit_image"}},
    }
    assert {name: set(SIGNATURES[name].codecs) for name in expected} == expected
    assert all(signature.codecs for signature in SIGNATURES.values())


CHAT = Chat(model="m", messages=(Message(role="user", content="Hi"),))


@pytest.mark.parametrize(
    ("operation", "request_", "param", "expected"),
    [
        ("complete", Complete(model="m", prompt="x"), "text_input", "prompt"),
        ("chat", CHAT, "text_input", "messages"),
        ("complete", Complete(model="m", prompt="x"), "structured_outputs", None),
        (
            "complete",
            Complete(
                model="m",
                prompt="x",
                sampling=Sampling(structured_outputs=StructuredOutput("regex", "a", param="guided_regex")),
            ),
            "structured_outputs",
            "guided_regex",
        ),
    ],
)
def test_a_call_explains_failures_in_the_callers_terms(
    operation: str, request_: Any, param: str, expected: str | None
) -> None:
    call = SIGNATURES["vllm"].codecs[operation].open(request_, card("vllm", "chat", "complete"))
    assert call.explain(InvalidRequest("No.", param=param)).param == expected


def test_what_cannot_be_encoded_names_the_callers_field() -> None:
    codec, model = SIGNATURES["vllm"].codecs["chat"], card("vllm", "chat")
    with pytest.raises(UnsupportedOption) as refused:
        codec.open(Chat(model="m", messages=(Message(role="user", content=(ImagePart(b"x"),)),)), model)
    assert refused.value.param == "messages[0].content[0]"
    with pytest.raises(UnsupportedOption) as refused:
        SIGNATURES["vllm"].codecs["complete"].open(Complete(model="m", prompt=(1, 2)), model)
    assert refused.value.param == "prompt"


def test_a_prompt_alone_requests_one_token_and_drops_it() -> None:
    request = Complete(model="m", prompt="Hi", echo=True, sampling=Sampling(max_tokens=0))
    call = SIGNATURES["vllm"].codecs["complete"].open(request, card("vllm", "complete"))
    (sent,) = (tensor for tensor in call.requests[0].tensors if tensor.name == "sampling_parameters")
    assert json.loads(sent.data[4:])["max_tokens"] == 1
    events = (Delta(0, "x", 1), Finish(0, "stop"), Usage(3, 1))
    assert call.read is not None
    assert [shown for event in events for shown in call.read(event)] == [Delta(0, "Hi"), Finish(0, "length"), events[2]]
