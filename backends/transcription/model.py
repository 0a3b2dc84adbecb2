"""The model file that Triton loads for `backend: "transcription"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path. If that is Triton's own
# backend directory, it has no `__init__.py` and is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.serving.dispatch import dispatch_requests
from backends.serving.metrics_publisher import MetricsPublisher
from backends.serving.parent_watch import exit_with_parent
from backends.serving.triton import Inputs, make_metrics
from backends.transcription.loading import load_frontend
from backends.transcription.metrics import COUNTERS, GAUGES
from backends.transcription.tensors import TranscriptionResponseSender, complete_config, read_request


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Declare the output that the configuration of an earlier build lacks."""
        complete_config(config)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the networks. Triton shows an exception of it as the reason why the model is not ready."""
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            self._frontend = load_frontend(folder, config.get("parameters", {}))
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        gauges, counters, self._families = make_metrics(args["model_name"], GAUGES, COUNTERS)
        self._publisher = MetricsPublisher(self._frontend.scheduler.stats, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Admit requests and return; their response senders answer them later."""
        dispatch_requests(
            requests,
            TranscriptionResponseSender,
            lambda request, sender: read_request(Inputs(request)),
            self._frontend.add_request,
        )

    def finalize(self) -> None:
        """Fail the active requests, and end every thread."""
        self._frontend.close()
        self._publisher.close()
        self._parent_watch.set()
