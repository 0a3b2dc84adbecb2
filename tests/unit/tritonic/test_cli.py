import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from rich.console import Console

from tritonic.models import Model
from tritonic.running import endpoints
from tritonic.welcome import example_model, welcome

CHATS = Model("b-chat", "served-b", "READY", "", ("chat", "complete"))
OTHER = Model("a-chat", "served-a", "READY", "", ("chat",))
EMBEDS = Model("embed", "embed", "READY", "", ("embed",))


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


def test_a_wrong_setting_is_named():
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
    welcome(console, "http://127.0.0.1:1088", [CHATS], None, tmp_path)
    text = console.file.getvalue()
    body = json.loads(re.search(r"-d '(.*?)'", text, re.DOTALL)[1])
    assert body["model"] == "served-b"
    python = text[text.index("from openai") : text.index("Logs:")]
    compile(python, "example", "exec")


def test_endpoints_come_from_the_environment_when_nothing_runs_here(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITONIC_TRITON_URLS", raising=False)
    assert endpoints(tmp_path) == ["127.0.0.1:8001"]
    monkeypatch.setenv("TRITONIC_TRITON_URLS", "a:1, b:2,")
    assert endpoints(tmp_path) == ["a:1", "b:2"]
