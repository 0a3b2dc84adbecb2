"""The model file that Triton loads for `backend: "reverse"`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.serving.active_request import ActiveRequest
from backends.serving.dispatch import dispatch_requests
from backends.serving.errors import InvalidValue, Overloaded
from backends.serving.parent_watch import exit_with_parent
from backends.serving.request_frontend import RequestFrontend, RequestStats
from backends.serving.triton import Inputs, TritonResponseSender


class WordSender(TritonResponseSender):
    """Sends one word in each response."""

    def send(self, word: str, *, final: bool) -> None:
        """Send a word."""
        tensor = pb_utils.Tensor("word", np.array([word.encode()], np.object_))
        self.respond(pb_utils.InferenceResponse([tensor]), final=final)


class ActiveText(ActiveRequest["ReverseFrontend", WordSender]):
    """One text, from its admission to its last word."""

    def __init__(self, key: int, text: str, sender: WordSender, frontend: "ReverseFrontend") -> None:
        super().__init__(key, sender, frontend)
        self._text = text

    def start(self) -> None:
        """Reverse the text in a thread of the frontend."""
        self.run_in_pool(self._frontend.pool, self._reverse)

    def _reverse(self) -> None:
        *words, last = self._frontend.reverse(self._text)
        for word in words:
            self.post(partial(self._sender.send, word, final=False))
        self.finish(partial(self._sender.send, last, final=True))


class ReverseFrontend(RequestFrontend[str, WordSender, ActiveText]):
    """Admits three texts at a time. Admission, disconnects, ordered responses and `close` are inherited."""

    def __init__(self, stats: RequestStats, reverse: Callable[[str], list[str]]) -> None:
        super().__init__(stats)
        self.reverse, self.pool = reverse, self.new_pool(1, "reverse")

    def make_active(self, key: int, request: str, sender: WordSender) -> ActiveText:
        """Return the active request of a text."""
        return ActiveText(key, request, sender, self)

    def queue_error(self, active: ActiveText) -> Overloaded | None:
        """Refuse a fourth text."""
        return Overloaded("Three texts wait already.") if self.active_size >= 3 else None


def reverse_words(text: str) -> list[str]:
    """Return the words of `text`, the last one first. Raises `InvalidValue`."""
    if not text.strip():
        raise InvalidValue("There are no words.", "text")
    return text.split()[::-1]


def read_text(request: Any) -> str:
    """Return the text of one of Triton's requests. Raises `InvalidValue`."""
    return (Inputs(request).text("text") or b"").decode(errors="replace")


@dataclass
class Stats:
    """The counters of the model."""

    requests_cancelled: int = 0


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the frontend. There are no weights to load."""
        self._parent_watch = exit_with_parent()
        self._frontend = ReverseFrontend(Stats(), reverse_words)

    def execute(self, requests: list[Any]) -> None:
        """Admit requests and return; their response senders answer them later."""
        dispatch_requests(requests, WordSender, lambda request, sender: read_text(request), self._frontend.add_request)

    def finalize(self) -> None:
        """Fail the active requests, and end every thread."""
        self._frontend.close()
        self._parent_watch.set()
