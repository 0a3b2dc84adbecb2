"""The default voice and the default transcription model through HTTP, by the official clients: what one speaks, the
other writes down.
"""

import re
from collections.abc import AsyncIterator, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai.types.audio import TranscriptionTextDoneEvent

from builders import recipe
from tests.clients.langchain_runner import load_documents, needs_langchain
from tests.clients.node_runner import run_node_tests
from tests.triton.conftest import PATIENCE
from tests.triton.model_copies import build_default, install_copy
from tests.wire.gateway_server import RunningGateway, run_gateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

VOICE, LISTENER = recipe.DEFAULT_SPEECH_RECIPE, recipe.DEFAULT_TRANSCRIPTION_RECIPE
TEXT = (
    "The old lighthouse keeper walked slowly down to the harbour. Doctor Smith had told him about the storm. "
    "Nobody in the village believed a word of it, but he closed the windows before the rain began."
)


@pytest.fixture(scope="module")
def sound_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A separate Triton with the two default models of sound."""
    repository = tmp_path_factory.mktemp("sound")
    for name in (VOICE, LISTENER):
        install_copy(build_default(name), repository, name)
    with EmbeddedTriton(repository) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(sound_triton: EmbeddedTriton) -> AsyncIterator[RunningGateway]:
    aliases = {"tts-1": VOICE, "whisper-1": LISTENER}
    async with run_gateway(sound_triton.grpc_url, triton_secret=sound_triton.secret, model_aliases=aliases) as running:
        running.http.timeout = httpx.Timeout(PATIENCE)
        yield running


def words(text: str) -> list[str]:
    plain = text.lower().replace("dr.", "doctor").replace("harbor", "harbour")
    return re.findall(r"[a-z]+", plain)


def share_heard(text: str) -> float:
    """Return the share of the spoken words that come back in their order."""
    spoken, heard = words(TEXT), words(text)
    blocks = SequenceMatcher(None, spoken, heard, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(spoken)


@pytest.mark.parametrize("speech_format", ["mp3", "opus", "aac", "flac", "wav"])
async def test_what_is_spoken_is_written_down(gateway: RunningGateway, tmp_path: Path, speech_format: Any) -> None:
    client, file = gateway.client(), tmp_path / f"speech.{speech_format}"
    async with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=speech_format
    ) as response:
        await response.stream_to_file(file)
    answer = await client.audio.transcriptions.create(model="whisper-1", file=file)
    assert share_heard(answer.text) >= 0.95, answer.text
    assert answer.usage and answer.usage.type == "tokens" and answer.usage.output_tokens > len(words(TEXT))
    details = answer.usage.input_token_details
    assert details and details.audio_tokens and details.text_tokens
    assert details.audio_tokens + details.text_tokens == answer.usage.input_tokens


async def test_words_and_streams_of_the_same_recording(gateway: RunningGateway) -> None:
    client = gateway.client()
    spoken = await client.audio.speech.create(model=VOICE, voice="alloy", input=TEXT, response_format="wav", speed=1.25)
    file = ("speech.wav", spoken.content)
    verbose = await client.audio.transcriptions.create(
        model=LISTENER,
        file=file,
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert verbose.language == "english" and verbose.segments and verbose.words
    assert share_heard(" ".join(word.word for word in verbose.words)) >= 0.95
    starts = [word.start for word in verbose.words]
    assert starts == sorted(starts) and starts[-1] < verbose.duration
    stream = await client.audio.transcriptions.create(model=LISTENER, file=file, language="en", stream=True)
    *deltas, done = [event async for event in stream]
    assert isinstance(done, TranscriptionTextDoneEvent) and share_heard(done.text) >= 0.95
    assert "".join(getattr(event, "delta", "") for event in deltas) == done.text


async def test_the_node_client_speaks_and_listens(gateway: RunningGateway) -> None:
    await run_node_tests(
        "sound.test.mjs", seconds=200, GATEWAY_URL=gateway.url, VOICE=VOICE, LISTENER=LISTENER, TEXT="Good morning."
    )


async def test_addresses_and_numbers_come_back(gateway: RunningGateway) -> None:
    client = gateway.client()
    text = "Please visit www.example.com today. The number is 555-123-4567. The ticket costs 25€, and it weighs 2.5 kg."
    spoken = await client.audio.speech.create(model=VOICE, voice="alloy", input=text, response_format="wav")
    heard = await client.audio.transcriptions.create(model=LISTENER, file=("a.wav", spoken.content), language="en")
    assert "example.com" in heard.text.lower().replace(" ", ""), heard.text
    assert "5551234567" in re.sub(r"\D", "", heard.text), heard.text
    assert re.search(r"(25|twenty.five) ?euro|€ ?25", heard.text, re.IGNORECASE), heard.text
    assert re.search(r"2\.5|two point five", heard.text), heard.text


@needs_langchain
async def test_the_loader_of_langchain(gateway: RunningGateway, tmp_path: Path) -> None:
    spoken = await gateway.client().audio.speech.create(model=VOICE, voice="alloy", input=TEXT, response_format="wav")
    file = tmp_path / "speech.wav"
    file.write_bytes(spoken.content)
    for response_format in ("json", "text"):
        (document,) = await load_documents(file, f"{gateway.url}/v1", "whisper-1", response_format)
        assert share_heard(document["text"]) >= 0.95, document["text"]
        assert (document["source"], document["chunk"]) == (str(file), 0)
