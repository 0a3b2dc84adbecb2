import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
from rich.console import Console

from tritonic import runfile
from tritonic.models import ModelInfo, ModelRepositoryClient, show
from tritonic.runfile import ProcessIdentity, RunRecord
from tritonic.running_triton import TritonEndpoint, find_endpoints
from tritonic.startup_message import example_model, print_startup_message

CHATS = ModelInfo("b-chat", "served-b", "READY", "", ("chat", "complete"))
OTHER = ModelInfo("a-chat", "served-a", "READY", "", ("chat",))
GENERATES_IMAGES = ModelInfo("d-image", "served-d", "READY", "", ("generate_image", "edit_image"))
SPEAKS = ModelInfo("e-voice", "served-e", "READY", "", ("speak",))
TRANSCRIBES = ModelInfo("f-whisper", "served-f", "READY", "", ("transcribe",))
EMBEDS = ModelInfo("embed", "embed", "READY", "", ("embed",))


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def find_body(text: str) -> dict[str, Any]:
    """Return the JSON body of the first curl command of the text."""
    found = re.search(r"-d '(.*?)'", text, re.DOTALL)
    assert found is not None
    body: dict[str, Any] = json.loads(found[1])
    return body


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "tritonic", *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version():
    assert run("--version").stdout == f"tritonic {version('tritonic')}\n"


@pytest.mark.parametrize("command", ["up", "down", "serve", "doctor", "models", "build"])
def test_every_command_has_help(command):
    ran = run(command, "--help")
    assert ran.returncode == 0, ran.stderr
    assert "Usage: " in ran.stdout


def test_an_invalid_setting_is_reported_by_name():
    ran = run("serve", TRITONIC_PORT="seventy")
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    ran = run("serve", TRITONIC_REQUEST_TIMEOUT="-1")
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (1, "Error: These settings are wrong:")
    assert "TRITONIC_REQUEST_TIMEOUT: Input should be greater than 0" in ran.stderr


def test_a_command_works_without_torch():
    code = "import sys, tritonic.cli; print([m for m in ('torch', 'uvicorn', 'grpc', 'gateway') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def test_the_examples_name_a_model_that_chats():
    assert example_model([EMBEDS, OTHER, CHATS], "b-chat") == "served-b"
    assert example_model([EMBEDS, OTHER, CHATS], "absent") == "served-a"
    assert example_model([EMBEDS], "embed") is None


def test_the_printed_examples_can_be_run_as_they_stand(tmp_path):
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    print_startup_message(console, "http://127.0.0.1:1088", [CHATS], None, tmp_path)
    text = printed(console)
    assert find_body(text)["model"] == "served-b"
    python = text[text.index("from openai") : text.index("Logs:")]
    compile(python, "example", "exec")


def test_the_examples_include_an_image_if_a_model_generates_images(tmp_path):
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    print_startup_message(console, "http://127.0.0.1:1088", [CHATS, GENERATES_IMAGES], None, tmp_path)
    text = printed(console)
    curl = text[text.index("curl http://127.0.0.1:1088/v1/images/generations") :]
    assert find_body(curl)["model"] == "served-d"


def test_the_example_of_transcription_reads_what_that_of_speech_writes(tmp_path):
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    print_startup_message(console, "http://127.0.0.1:1088", [TRANSCRIBES, SPEAKS], None, tmp_path)
    text = printed(console)
    speech = text[text.index("curl http://127.0.0.1:1088/v1/audio/speech") :]
    assert find_body(speech)["model"] == "served-e" and find_body(speech)["response_format"] == "wav"
    assert "-o speech.wav \\\n" in speech
    transcription = speech[speech.index("curl http://127.0.0.1:1088/v1/audio/transcriptions") :]
    assert "-F model=served-f -F file=@speech.wav\n" in transcription


def test_a_transcription_without_a_voice_has_a_recording_of_the_reader(tmp_path):
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    print_startup_message(console, "http://127.0.0.1:1088", [TRANSCRIBES], None, tmp_path, asks_for_key=True)
    text = printed(console)
    assert "/audio/speech" not in text
    assert '-H "Authorization: Bearer $TRITONIC_API_KEY" -F model=served-f -F file=@recording.mp3\n' in text


def test_endpoints_come_from_the_environment_when_nothing_runs_here(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITONIC_TRITON_URLS", raising=False)
    monkeypatch.delenv("TRITONIC_TRITON_SECRET", raising=False)
    assert find_endpoints(tmp_path) == [TritonEndpoint("127.0.0.1:8001")]
    monkeypatch.setenv("TRITONIC_TRITON_URLS", "a:1, b:2,")
    monkeypatch.setenv("TRITONIC_TRITON_SECRET", "s")
    assert find_endpoints(tmp_path) == [TritonEndpoint("a:1", "s"), TritonEndpoint("b:2", "s")]
    assert find_endpoints(tmp_path, "c:3") == [TritonEndpoint("c:3", "s")]


def test_the_secret_of_the_triton_that_runs_here_is_read_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITONIC_TRITON_SECRET", "another's")
    runfile.write(
        tmp_path, RunRecord(ProcessIdentity.current(), "tag", "/models", triton_grpc="unix:/x", triton_secret="its own")
    )
    assert find_endpoints(tmp_path) == find_endpoints(tmp_path, "unix:/x") == [TritonEndpoint("unix:/x", "its own")]
    assert find_endpoints(tmp_path, "c:3") == [TritonEndpoint("c:3", "another's")]
    assert "its own" not in repr(find_endpoints(tmp_path))


@pytest.mark.parametrize("command", ["up", "serve", "doctor"])
@pytest.mark.parametrize("port", ["99999", "-1", "65536"])
def test_an_invalid_port_is_a_usage_error(command, port):
    ran = run(command, "--port", port, COLUMNS="200")
    assert ran.returncode == 2
    bound = "greater than or equal to 0" if port == "-1" else "less than or equal to 65535"
    assert re.search(rf"Invalid value for '--port'.*: Input should be {bound}", ran.stderr)
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_an_invalid_triton_port_is_a_usage_error(name):
    ran = run("up", f"--triton-{name}-port", "99999", COLUMNS="200")
    assert ran.returncode == 2
    assert re.search(rf"'--triton-{name}-port'.*: Input should be less than or equal to 65535", ran.stderr)
    by_variable = run("up", COLUMNS="200", **{f"TRITONIC_TRITON_{name.upper()}_PORT": "70000"})
    assert by_variable.returncode == 2
    assert f"TRITONIC_TRITON_{name.upper()}_PORT" in by_variable.stderr


@pytest.mark.parametrize("width", [20, 60, 300])
def test_model_names_are_never_cut_off(monkeypatch, width):
    known = [
        ModelInfo(
            "llama-3.1-nemotron-nano-8b-instruct-int8", "nvidia/" + "long-name-" * 12, "READY", "", ("chat",), "8192"
        ),
        ModelInfo("b", "b", "UNAVAILABLE", "torn"),
    ]
    monkeypatch.setattr(ModelRepositoryClient, "list_models", lambda _: known)
    console = Console(file=io.StringIO(), width=width, highlight=False, soft_wrap=True)
    show([TritonEndpoint("127.0.0.1:1")], console)
    lines = printed(console).splitlines()
    assert any(known[0].name in line and known[0].served_name in line and "READY" in line for line in lines)
    assert any(re.match(r" *b +b +UNAVAILABLE", line) for line in lines)
    assert "b: torn" in lines


def test_the_examples_send_an_api_key_if_one_is_required(tmp_path):
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    print_startup_message(console, "http://127.0.0.1:1", [CHATS], None, tmp_path, asks_for_key=True)
    text = printed(console)
    curl = text[text.index("curl") : text.index("import os")]
    request = subprocess.run(
        ["bash", "-c", curl.replace("curl ", "printf '%s\\n' ", 1)],
        env=os.environ | {"TRITONIC_API_KEY": "secret"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "-H\nAuthorization: Bearer secret\n" in request
    assert json.loads(request[request.index("-d\n") + 3 :])["model"] == "served-b"
    python = text[text.index("import os") : text.index("Logs:")]
    compile(python, "example", "exec")
    assert 'api_key=os.environ["TRITONIC_API_KEY"]' in python
