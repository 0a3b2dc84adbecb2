"""The scripted models of the wire tests: the name of each tells what it does."""

import json

import grpc

from tests.fakes.scripted_model import (
    HELLO,
    Close,
    DrawImages,
    Echo,
    Fail,
    Pause,
    Say,
    ScriptedModel,
    SpeakSentences,
    Step,
)

INVALID_ARGUMENT, UNAVAILABLE, NOT_FOUND = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND,
)

MULTILINGUAL_TEXTS = (
    *("سلام دنیا", "، ", "שלום", "\u200f!", " 👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "你", "好", "e\u0301", " 𝄞"),
    *("line\n\ndata: [DONE]\n\n", "\r\u2028\u2029\u0085", '"\\', "\x00\x1b", "👍🏽"),
)
"""Right-to-left text, emoji joined by ZWJ, combining marks, and characters that could split a server-sent event."""


def with_pauses(*script: Step) -> tuple[Step, ...]:
    """Return the script with a pause after each step: tokens do not coalesce, and each becomes a chunk."""
    return tuple(part for step in script for part in (step, Pause(0.04)))


_TRIO = (
    Say(("a", "1", "")),
    Say(("b", "", "x"), ("", "stop", "")),
    Say(("c", "", "y"), tokens=2),
    Say(("", "", "z"), ("length", "", "stop"), tokens=3),
)
_CALL = (
    Say("Let me look.\n<tool"),
    Say('_call>\n{"name": "f", "argu'),
    Say('ments": {"a": '),
    Say("1}}\n</tool_call>", "stop"),
)
_HI = {
    "5": {"logprob": -0.5, "rank": 1, "decoded_token": "Hi", "bytes": [72, 105]},
    "9": {"logprob": -1.5, "rank": 2, "decoded_token": "Ho", "bytes": [72, 111]},
}
_THUMB = [
    {"7": {"logprob": -3.25, "rank": 8, "decoded_token": " \ufffd", "bytes": [32, 240, 159]}} | _HI,
    {"8": {"logprob": -0.25, "rank": 1, "decoded_token": "\ufffd", "bytes": [145, 141]}},
]
_THOUGHT = (Say("<thi"), Say("nk>Hm"), Say(".</think>\n\nYes", "stop"))
_ODDS = (
    Say("Hi", logprobs=json.dumps([_HI])),
    Say(" 👍", "stop", tokens=2, logprobs=json.dumps(_THUMB)),
)
_SEEING = (
    "{% for m in messages %}{% for part in m.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
)
_REFUSAL = "{{ raise_exception('Conversation roles must alternate user/assistant.') }}"

SCRIPTED_MODELS = [
    ScriptedModel("hello"),
    ScriptedModel("folder", parameters={"served_name": "org/served", "owned_by": "org", "created": "1700000000"}),
    ScriptedModel("echo", (Echo(16, pause=0.001),)),
    ScriptedModel("tongues", (*map(Say, MULTILINGUAL_TEXTS), Say("", "stop"))),
    ScriptedModel("trio", _TRIO),
    ScriptedModel("spaced", with_pauses(*HELLO)),
    ScriptedModel("spaced-tongues", (*with_pauses(*map(Say, MULTILINGUAL_TEXTS)), Say("", "stop"))),
    ScriptedModel("spaced-caller", with_pauses(*_CALL)),
    ScriptedModel("hasty", (Say("a"), Pause(0.05), *(Say(" b"),) * 50, Say("", "stop"))),
    ScriptedModel("hasty-then-broken", (*(Say("a"),) * 50, Fail("[engine_failed] The engine stopped."))),
    ScriptedModel("whole-sentence", (Say("One sentence.", "stop"),)),
    ScriptedModel("cut", (Say("as far as"), Say(" it goes", "length"))),
    ScriptedModel("halting", (Say(""), Say("a"), Say(""), Pause(0.05), Say("b"), Say(""), Say("", "stop", tokens=0))),
    ScriptedModel("empty-final", sends_empty_final=True),
    ScriptedModel("wordless", (Say("", "stop"),)),
    ScriptedModel("base", parameters={"operations": '["complete"]', "chat_template": None}),
    ScriptedModel("picky", parameters={"chat_template": _REFUSAL}),
    ScriptedModel("others", missing_inputs=("literal_spans", "token_ids")),
    ScriptedModel("vision", is_described=False),
    ScriptedModel("garbled", parameters={"operations": "chat, complete"}),
    # Models with tool calls, reasoning, log probabilities, and embeddings.
    ScriptedModel("caller", _CALL),
    ScriptedModel("elder", missing_inputs=("literal_spans",)),
    ScriptedModel(
        "eager", (Say('<tool_call>\n{"name": "f", "argu'), Say('ments": {"a":1}}\n'), Say("</tool_call>", "stop"))
    ),
    ScriptedModel("eager-and-cut", (Say('<tool_call>\n{"name": "f", "arguments": {"a"'), Say(":1", "length"))),
    ScriptedModel("eager-and-stopped", (Say('<tool_call>\n{"name": "f", "arguments": {"a"'), Say("", "stop"))),
    ScriptedModel(
        "forced", (Say('[{"name":"f","arg'), Say('uments":{"a":1}},'), Say('{"name":"g","arguments":{}}]', "stop"))
    ),
    ScriptedModel("named", (Say('{"a"'), Say(":1}", "stop"))),
    ScriptedModel(
        "thinker",
        (Say("<thi"), Say("nk>Hm"), Say(".</think>\n\nYes", "stop")),
        parameters={"reasoning_parser": "think"},
    ),
    ScriptedModel("odds", _ODDS),
    ScriptedModel("vectors", is_embedding_model=True),
    ScriptedModel("older-vectors", is_embedding_model=True, missing_inputs=("truncate_prompt_tokens",)),
    ScriptedModel("short-vectors", is_embedding_model=True, max_characters=256),
    ScriptedModel(
        "sighted", (Say("A cat.", "stop"),), parameters={"modalities": '["text", "image"]', "chat_template": _SEEING}
    ),
    ScriptedModel(
        "strict", (Fail("[invalid_value:structured_outputs] This cannot be enforced: no such type.", INVALID_ARGUMENT),)
    ),
    # Image models.
    ScriptedModel("shapes", (DrawImages(),), is_image_model=True),
    ScriptedModel(
        "any-size",
        (DrawImages(),),
        is_image_model=True,
        parameters={"sizes": None, "size_multiple": "8", "min_size": "64", "max_size": "[512, 256]"},
    ),
    ScriptedModel("paint-only", (DrawImages(),), is_image_model=True, parameters={"operations": '["generate_image"]'}),
    ScriptedModel("slow-painter", (DrawImages(20, pause=0.05),), is_image_model=True),
    ScriptedModel("short-painter", (DrawImages(num_missing=1),), is_image_model=True),
    ScriptedModel("blotter", (DrawImages(is_garbled=True),), is_image_model=True),
    ScriptedModel("broken-painter", (Fail("[engine_failed] The engine stopped."),), is_image_model=True),
    ScriptedModel("shapes-denoiser", is_described=False, parameters={"component": "shapes"}),
    # Models that speak.
    ScriptedModel("hibari", (SpeakSentences(),), is_speech_model=True),
    ScriptedModel("slow-speaker", (SpeakSentences(pause=0.4),), is_speech_model=True),
    ScriptedModel("low-speaker", (SpeakSentences(rate=16_000),), is_speech_model=True),
    ScriptedModel("breathless", (SpeakSentences(hangs_later=True),), is_speech_model=True),
    ScriptedModel("hoarse", (SpeakSentences(fails_later=True),), is_speech_model=True),
    ScriptedModel(
        "mute",
        (SpeakSentences(pause=0.01),),
        is_speech_model=True,
        missing_inputs=("voice", "language", "speed", "instructions"),
        parameters={"voices": None, "default_voice": None, "max_characters": "100"},
    ),
    ScriptedModel("actor", (SpeakSentences(),), is_speech_model=True, parameters={"follows_instructions": "true"}),
    # Models that fail before the first response,
    ScriptedModel(
        "too-long",
        (
            Fail(
                "[context_length_exceeded:text_input] The prompt has 9000 tokens; the context has room for 8192.",
                INVALID_ARGUMENT,
            ),
        ),
    ),
    ScriptedModel(
        "refused",
        (Fail("[invalid_value:sampling_parameters] The option top_k must be at most 49152.", INVALID_ARGUMENT),),
    ),
    ScriptedModel(
        "unable", (Fail("[unsupported_option:sampling_parameters] There is no option min_p.", INVALID_ARGUMENT),)
    ),
    ScriptedModel("full", (Fail("[overloaded] 1024 requests wait already.", UNAVAILABLE),)),
    ScriptedModel("broken", (Fail("[engine_failed] The engine stopped."),)),
    ScriptedModel("crashed", (Fail("Failed to process the request(s) for model instance 'x', message: KeyError"),)),
    ScriptedModel("vanished", (Fail("Request for unknown model: 'vanished' is not found", NOT_FOUND),)),
    ScriptedModel("closed", (Close(),)),
    # and after it.
    ScriptedModel("broken-later", (*with_pauses(Say("a"), Say("b")), Fail("[engine_failed] The engine stopped."))),
    ScriptedModel("full-later", (Say("a"), Fail("[overloaded] No room.", UNAVAILABLE))),
    ScriptedModel("closed-later", (Say("a"), Say("b"), Close())),
    # Slow models.
    ScriptedModel("silent", (Pause(),)),
    ScriptedModel("silent-later", (Say("a"), Pause())),
    ScriptedModel("endless", (Say("tick "), Pause(0.01)) * 3000),
    ScriptedModel("steady", (Say("tick "), Pause(0.25)) * 4 + (Say("tock", "stop"),)),
    ScriptedModel("late", (Pause(0.2), Say("a"), Pause(0.1), Say("b", tokens=2), Pause(0.1), Say("c", "stop"))),
]
