"""What `up` prints when everything is ready."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tritonic.models import Model


def example_model(models: Sequence[Model], preferred: str | None) -> str | None:
    """The name that the examples use: the preferred model where it serves, else the first that chats."""
    chatting = [model for model in models if "chat" in model.operations]
    chatting.sort(key=lambda model: model.name != preferred)
    return chatting[0].served_name if chatting else None


def welcome(console: Console, url: str, models: Sequence[Model], preferred: str | None, state: Path) -> None:
    """Print the address, a curl line, a Python snippet, and where the logs are."""
    console.print()
    console.print(f"[bold green]Tritonic is ready:[/] [bold]{url}/v1[/]   documentation: {url}/docs")
    name = example_model(models, preferred)
    if name is not None:
        # Printed without wrapping or markup, so that it can be copied.
        examples = (_CURL + _PYTHON).format(url=url, model=name).rstrip()
        console.print(examples, markup=False, highlight=False)
    console.print()
    console.print(f"Logs: {state / 'gateway.log'}, {state / 'triton.log'}. Ctrl-C or `tritonic down` stops everything.")


_CURL = """
curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "temperature": 0,
       "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
"""

_PYTHON = """
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
answer = client.chat.completions.create(
    model="{model}", temperature=0, messages=[{{"role": "user", "content": "What is the capital of France?"}}]
)
print(answer.choices[0].message.content)
"""
