"""The message that `up` prints when everything is ready."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tritonic.models import ModelInfo


def example_model(models: Sequence[ModelInfo], preferred: str | None) -> str | None:
    """Return the served name for the examples: the chat model in folder `preferred`, else the first one, or None."""
    chatting = [model for model in models if "chat" in model.operations]
    chatting.sort(key=lambda model: model.name != preferred)
    return chatting[0].served_name if chatting else None


def print_startup_message(
    console: Console,
    url: str,
    models: Sequence[ModelInfo],
    preferred: str | None,
    state: Path,
    *,
    asks_for_key: bool = False,
) -> None:
    """Print the address, an example of each operation that is there, and where the logs are.

    If the gateway asks for a key, the examples read it from a variable, so that the message holds no secret.
    """
    console.print()
    console.print(f"[bold green]Tritonic is ready:[/] [bold]{url}/v1[/]   documentation: {url}/docs")
    key = _KEY if asks_for_key else _NO_KEY
    if asks_for_key:
        console.print("The gateway asks for a key: `export TRITONIC_API_KEY=…`, one of TRITONIC_API_KEYS, first.")
    name = example_model(models, preferred)
    if name is not None:
        # Printed without wrapping or markup, so that it can be copied.
        examples = (_CURL + _PYTHON).format(url=url, model=name, **key).rstrip()
        console.print(examples, markup=False, highlight=False)
    speaks = any("speak" in model.operations for model in models)
    for operation, example in _CURL_EXAMPLES.items():
        model = next((model for model in models if operation in model.operations), None)
        if model is not None:
            file = _SPEECH_FILE if speaks else "recording.mp3"
            command = example.format(url=url, model=model.served_name, header=key["header"], file=file).rstrip()
            console.print(command, markup=False, highlight=False)
    console.print()
    console.print(f"Logs: {state / 'gateway.log'}, {state / 'triton.log'}. Ctrl-C or `tritonic down` stops everything.")


_KEY = {
    "header": '-H "Authorization: Bearer $TRITONIC_API_KEY" ',
    "import_os": "import os\n",
    "key": 'os.environ["TRITONIC_API_KEY"]',
}
_NO_KEY = {"header": "", "import_os": "", "key": '"none"'}

_CURL = """
curl {url}/v1/chat/completions {header}-H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "temperature": 0,
       "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
"""

_PYTHON = """
{import_os}from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key={key})
answer = client.chat.completions.create(
    model="{model}", temperature=0, messages=[{{"role": "user", "content": "What is the capital of France?"}}]
)
print(answer.choices[0].message.content)
"""

_PICTURE = """
curl {url}/v1/images/generations {header}-H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "prompt": "a large red circle on a blue background"}}'
"""

_VIDEO = """
# A video is a task: ask for its status with the id of the answer, then for the file.
curl {url}/v1/videos {header}-H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "prompt": "a red circle moves to the left", "seconds": "2"}}'
curl {url}/v1/videos/ID/content {header}-o video.mp4
"""

_SPEECH_FILE = "speech.wav"
"""The file that the example of speech writes and that of transcription reads."""

_SPEECH = """
curl {url}/v1/audio/speech {header}-H 'Content-Type: application/json' -o {file} \\
  -d '{{"model": "{model}", "input": "The train leaves at half past seven.", "response_format": "wav"}}'
"""

_TRANSCRIPTION = """
curl {url}/v1/audio/transcriptions {header}-F model={model} -F file=@{file}
"""

_CURL_EXAMPLES = {
    "generate_image": _PICTURE,
    "generate_video": _VIDEO,
    "speak": _SPEECH,
    "transcribe": _TRANSCRIPTION,
}
"""An example of each operation but chat."""
