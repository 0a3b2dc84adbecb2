"""A complete toy backend on the shared request front: it answers a text with its words, one per response."""

from collections.abc import Callable
from functools import partial

import triton_python_backend_utils as pb_utils

from backends.serving.active_request import ActiveRequest
from backends.serving.errors import Overloaded
from backends.serving.request_frontend import RequestFrontend, RequestStats
from backends.serving.triton import TritonResponseSender


class WordSender(TritonResponseSender):
    def send(self, word: str, *, final: bool) -> None:
        self.respond(pb_utils.InferenceResponse([word]), final=final)


class ActiveText(ActiveRequest["WordFrontend", WordSender]):
    def __init__(self, key: int, text: str, sender: WordSender, frontend: "WordFrontend") -> None:
        super().__init__(key, sender, frontend)
        self._text = text

    def start(self) -> None:
        self.run_in_pool(self._frontend.pool, self._split)

    def _split(self) -> None:
        *words, last = self._frontend.split(self._text)
        for word in words:
            self.post(partial(self._sender.send, word, final=False))
        self.finish(partial(self._sender.send, last, final=True))


class WordFrontend(RequestFrontend[str, WordSender, ActiveText]):
    def __init__(self, stats: RequestStats, split: Callable[[str], list[str]]) -> None:
        super().__init__(stats)
        self.split, self.pool = split, self.new_pool(1, "words")

    def make_active(self, key: int, request: str, sender: WordSender) -> ActiveText:
        return ActiveText(key, request, sender, self)

    def queue_error(self, active: ActiveText) -> Overloaded | None:
        return Overloaded("Three texts wait already.") if self.active_size >= 3 else None
