"""The official Node client and the sound routes."""

import re
from pathlib import Path

from tests.clients.node_runner import run_node_tests
from tests.fakes.scripted_model import Listen, ScriptedModel
from tests.fakes.sound_files import HELLO, heard, sound_file
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import run_gateway


async def test_the_node_client_transcribes(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(sound_file())
    models = [
        ScriptedModel("ear", (Listen(),), is_transcription_model=True),
        ScriptedModel("ear-slow", (Listen(pause=60),), is_transcription_model=True),
    ]
    triton = await FakeTriton(models).start()
    async with run_gateway(triton.url) as gateway:
        output = await run_node_tests("audio.test.mjs", GATEWAY_URL=gateway.url, SOUND=str(sound), TEXT=heard(HELLO))
        passed = re.search(r"pass (\d+)", output)
        assert passed is not None and int(passed[1]) >= 7, output
        await triton.cancelled_call("ear-slow", seconds=10)
    await triton.stop()
