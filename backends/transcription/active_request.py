"""One request for a transcription from its admission to its last response."""

from functools import partial
from typing import TYPE_CHECKING, Protocol

from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import EngineFailed
from backends.transcription.job import TranscriptionJob, WindowResult, WindowTask
from backends.transcription.request import Request
from backends.transcription.responses import ResponseBuilder, TranscriptionResponse
from backends.transcription.windows import WindowCutter

if TYPE_CHECKING:
    from backends.transcription.request_frontend import TranscriptionFrontend


class TranscriptionSender(ResponseSender, Protocol):
    """Sends the responses of one request."""

    def send(self, response: TranscriptionResponse, *, final: bool) -> None:
        """Send one response; `final` marks the last."""


class ActiveTranscription(ActiveRequest["TranscriptionFrontend", TranscriptionSender]):
    """One request: its windows are decoded in any order, and its segments are sent in order of time."""

    def __init__(
        self, key: int, request: Request, sender: TranscriptionSender, frontend: "TranscriptionFrontend"
    ) -> None:
        """The `size` of a request is its number of samples."""
        super().__init__(key, sender, frontend, request.num_samples)
        self._request: Request | None = request
        self._job: TranscriptionJob | None = None
        # The sender thread alone uses these.
        self._responses: ResponseBuilder | None = None
        self._results: dict[int, WindowResult] = {}
        self._num_sent = 0
        self._num_windows: int | None = None
        self._held: TranscriptionResponse | None = None

    def start(self) -> None:
        """Have the speech of the recording found."""
        if request := self._request:
            self.run_in_pool(self._frontend.pool_for(request), self._prepare)

    def release(self) -> None:
        """Drop the recording and remove the job."""
        self._request = None
        if self._job:
            self._frontend.scheduler.cancel(self._job)

    def _prepare(self) -> None:
        # A long recording has many megabytes: its windows alone refer to it from here on.
        request, self._request = self._request, None
        if request is None:
            return
        frontend = self._frontend
        checked = frontend.check(request)
        self._responses = ResponseBuilder(
            frontend.tokens, checked.task, checked.timestamps, logprobs=checked.return_logprobs
        )
        job = TranscriptionJob(
            checked.language,
            checked.task,
            checked.prompt,
            checked.temperatures,
            words=checked.timestamps == "word",
            on_window=lambda result: self.post(partial(self._take, result)),
            on_failed=self._on_failed,
        )
        self._job = job
        frontend.scheduler.submit(job)
        cutter = WindowCutter(frontend.detector, checked.audio, checked.voice_activity, more=checked.more)
        number = 0
        for window in cutter:
            if self.is_abandoned():
                return
            frontend.scheduler.add(WindowTask(job, number, window, window.audio(checked.audio)))
            number += 1
        self.post(partial(self._take_end, number, cutter.consumed, checked.language or ""))

    def _on_failed(self, error: Exception) -> None:
        self.fail(EngineFailed(f"The recording could not be transcribed: {str(error)[:500]}"))

    def _take(self, result: WindowResult) -> None:
        """Send the segments of all windows up to the first that is not decoded yet."""
        self._results[result.number] = result
        self._send_ready()

    def _take_end(self, num_windows: int, consumed: float, language: str) -> None:
        self._num_windows = num_windows
        assert self._responses is not None
        self._responses.set_end(consumed, language)
        self._send_ready()

    def _send_ready(self) -> None:
        assert self._responses is not None
        try:
            while (result := self._results.pop(self._num_sent, None)) is not None:
                self._num_sent += 1
                for response in self._responses.of_window(result):
                    self._send_held()
                    self._held = response
            if self._num_sent != self._num_windows:
                self._send_held()  # it is not the last: another window follows, or the end does
                return
            last = self._responses.last(self._held)
        except Exception as error:  # a result that cannot be written ends this request alone
            self._on_failed(error)
            return
        if self._job:
            self._frontend.scheduler.finish(self._job)
        if self.stop():
            self.send_last(partial(self._sender.send, last, final=True))

    def _send_held(self) -> None:
        if self._held is not None and not self.stopped:
            held, self._held = self._held, None
            self._sender.send(held, final=False)
