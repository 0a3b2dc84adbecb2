"""Models that go well whatever they are asked, and how much is asked of them."""

import json
import os

from hypothesis import HealthCheck, Phase, settings

from tests.fakes.script import Draw, Model, Say

_TOKEN = {"5": {"logprob": -0.25, "rank": 1, "decoded_token": "a", "bytes": [97]}}
_ODDS = json.dumps([_TOKEN])
FUZZED = [
    Model("hello"),
    Model("scored", (Say("a", logprobs=_ODDS), Say("a", "stop", logprobs=_ODDS))),
    Model("caller", (Say('<tool_call>\n{"name": "f", "argu'), Say('ments": {"a": 1}}\n</tool_call>', "stop"))),
    Model(
        "thinker",
        (Say("<think>hm"), Say("m</think>\n\nYes."), Say("", "stop")),
        parameters={"reasoning_parser": "think"},
    ),
    Model("vectors", embedding=True),
    Model("shapes", (Draw(1),), drawing=True),
]
SPEAKING = [model.name for model in FUZZED[:-2]]

EXAMPLES = int(os.environ.get("TRITONIC_FUZZ_EXAMPLES", "0"))


def asked(few: int) -> settings:
    """So many examples, always the same; or as many as the environment says, anew each time."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
