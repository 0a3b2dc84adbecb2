"""The scripted models of the wire tests."""

import json

import grpc

from tests.fakes.script import HELLO, Close, Draw, Echo, Fail, Model, Pause, Say, Step

BAD, BUSY, GONE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND

TONGUES = (
    *("سلام دنیا", "، ", "שלום", "\u200f!", " 👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "你", "好", "e\u0301", " 𝄞"),
    *("line\n\ndata: [DONE]\n\n", "\r\u2028\u2029\u0085", '"\\', "\x00\x1b", "👍🏽"),
)
"""Right-to-left text, emoji joined by ZWJ, combining marks, and everything that could break an event in two."""


def spaced(*script: Step) -> tuple[Step, ...]:
    """The same with time between the tokens, so that none of them waits for the next: each becomes a chunk."""
    return tuple(step for said in script for step in (said, Pause(0.04)))


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

CAST = [
    Model("hello"),
    Model("folder", parameters={"served_name": "org/served", "owned_by": "org", "created": "1700000000"}),
    Model("echo", (Echo(16, pause=0.001),)),
    Model("tongues", (*map(Say, TONGUES), Say("", "stop"))),
    Model("trio", _TRIO),
    Model("spaced", spaced(*HELLO)),
    Model("spaced-tongues", (*spaced(*map(Say, TONGUES)), Say("", "stop"))),
    Model("spaced-caller", spaced(*_CALL)),
    Model("hasty", (Say("a"), Pause(0.05), *(Say(" b"),) * 50, Say("", "stop"))),
    Model("hasty-then-broken", (*(Say("a"),) * 50, Fail("[engine_failed] The engine stopped."))),
    Model("cut", (Say("as far as"), Say(" it goes", "length"))),
    Model("halting", (Say(""), Say("a"), Say(""), Pause(0.05), Say("b"), Say(""), Say("", "stop", tokens=0))),
    Model("empty-final", empty_final=True),
    Model("wordless", (Say("", "stop"),)),
    Model("base", parameters={"operations": '["complete"]', "chat_template": None}),
    Model("picky", parameters={"chat_template": _REFUSAL}),
    Model("others", without=("literal_spans", "token_ids")),
    Model("vision", text_generation=False),
    Model("garbled", parameters={"operations": "chat, complete"}),
    # Models that call tools, think, tell what tokens were worth, and turn texts into vectors.
    Model("caller", _CALL),
    Model("elder", without=("literal_spans",)),
    Model("eager", (Say('<tool_call>\n{"name": "f", "argu'), Say('ments": {"a":1}}\n'), Say("</tool_call>", "stop"))),
    Model("eager-and-cut", (Say('<tool_call>\n{"name": "f", "arguments": {"a"'), Say(":1", "length"))),
    Model("eager-and-stopped", (Say('<tool_call>\n{"name": "f", "arguments": {"a"'), Say("", "stop"))),
    Model("forced", (Say('[{"name":"f","arg'), Say('uments":{"a":1}},'), Say('{"name":"g","arguments":{}}]', "stop"))),
    Model("named", (Say('{"a"'), Say(":1}", "stop"))),
    Model(
        "thinker",
        (Say("<thi"), Say("nk>Hm"), Say(".</think>\n\nYes", "stop")),
        parameters={"reasoning_parser": "think"},
    ),
    Model("odds", _ODDS),
    Model("vectors", embedding=True),
    Model("older-vectors", embedding=True, without=("truncate_prompt_tokens",)),
    Model("short-vectors", embedding=True, context=256),
    Model(
        "sighted", (Say("A cat.", "stop"),), parameters={"modalities": '["text", "image"]', "chat_template": _SEEING}
    ),
    Model("strict", (Fail("[invalid_value:structured_outputs] This cannot be enforced: no such type.", BAD),)),
    # Models that draw.
    Model("shapes", (Draw(),), drawing=True),
    Model(
        "any-size",
        (Draw(),),
        drawing=True,
        parameters={"sizes": None, "size_multiple": "8", "min_size": "64", "max_size": "[512, 256]"},
    ),
    Model("paint-only", (Draw(),), drawing=True, parameters={"operations": '["generate_image"]'}),
    Model("slow-painter", (Draw(20, pause=0.05),), drawing=True),
    Model("short-painter", (Draw(missing=1),), drawing=True),
    Model("blotter", (Draw(garbled=True),), drawing=True),
    Model("broken-painter", (Fail("[engine_failed] The engine stopped."),), drawing=True),
    Model("shapes-denoiser", text_generation=False, parameters={"component": "shapes"}),
    # How requests fail before they answer anything,
    Model(
        "too-long",
        (Fail("[context_length_exceeded:text_input] The prompt has 9000 tokens; the context has room for 8192.", BAD),),
    ),
    Model("refused", (Fail("[invalid_value:sampling_parameters] The option top_k must be at most 49152.", BAD),)),
    Model("unable", (Fail("[unsupported_option:sampling_parameters] There is no option min_p.", BAD),)),
    Model("full", (Fail("[overloaded] 1024 requests wait already.", BUSY),)),
    Model("broken", (Fail("[engine_failed] The engine stopped."),)),
    Model("crashed", (Fail("Failed to process the request(s) for model instance 'x', message: KeyError"),)),
    Model("vanished", (Fail("Request for unknown model: 'vanished' is not found", GONE),)),
    Model("closed", (Close(),)),
    # and after they answered something.
    Model("broken-later", (*spaced(Say("a"), Say("b")), Fail("[engine_failed] The engine stopped."))),
    Model("full-later", (Say("a"), Fail("[overloaded] No room.", BUSY))),
    Model("closed-later", (Say("a"), Say("b"), Close())),
    # How models are slow.
    Model("silent", (Pause(),)),
    Model("silent-later", (Say("a"), Pause())),
    Model("endless", (Say("tick "), Pause(0.01)) * 3000),
    Model("steady", (Say("tick "), Pause(0.25)) * 4 + (Say("tock", "stop"),)),
    Model("late", (Pause(0.2), Say("a"), Pause(0.1), Say("b", tokens=2), Pause(0.1), Say("c", "stop"))),
]
