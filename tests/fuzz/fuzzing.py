"""Scripted models that answer every request, and the number of examples of each test."""

import json
import os

from hypothesis import HealthCheck, Phase, settings

from tests.fakes.scripted_model import DrawImages, EnlargePicture, FilmVideo, Say, ScriptedModel, SpeakSentences

_TOKEN = {"5": {"logprob": -0.25, "rank": 1, "decoded_token": "a", "bytes": [97]}}
_LOGPROBS = json.dumps([_TOKEN])
FUZZED_MODELS = [
    ScriptedModel("hello"),
    ScriptedModel("scored", (Say("a", logprobs=_LOGPROBS), Say("a", "stop", logprobs=_LOGPROBS))),
    ScriptedModel("caller", (Say('<tool_call>\n{"name": "f", "argu'), Say('ments": {"a": 1}}\n</tool_call>', "stop"))),
    ScriptedModel(
        "thinker",
        (Say("<think>hm"), Say("m</think>\n\nYes."), Say("", "stop")),
        parameters={"reasoning_parser": "think"},
    ),
    ScriptedModel("speaker", (SpeakSentences(),), is_speech_model=True),
    ScriptedModel("vectors", is_embedding_model=True),
    ScriptedModel("shapes", (DrawImages(1),), is_image_model=True),
    ScriptedModel("film", (FilmVideo(1),), is_video_model=True),
    ScriptedModel("larger", (EnlargePicture(1),), is_upscaling_model=True),
]
TEXT_MODELS = [model.name for model in FUZZED_MODELS[:-5]]

NUM_EXAMPLES = int(os.environ.get("TRITONIC_FUZZ_EXAMPLES", "0"))


def hypothesis_settings(few: int) -> settings:
    """Return settings with `few` fixed examples, or with TRITONIC_FUZZ_EXAMPLES random ones if that is set."""
    return settings(
        max_examples=NUM_EXAMPLES or few,
        derandomize=not NUM_EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
