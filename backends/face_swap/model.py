"""The model file that Triton loads for `backend: "face_swap"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path. If that is Triton's own
# backend directory, it has no `__init__.py` and is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.face_swap.loading import load_swapper
from backends.face_swap.metrics import COUNTERS, GAUGES
from backends.face_swap.options import read_options
from backends.face_swap.request_frontend import FaceSwapFrontend
from backends.face_swap.tensors import FaceSwapResponseSender, read_request
from backends.serving.dispatch import dispatch_requests
from backends.serving.metrics_publisher import MetricsPublisher
from backends.serving.parent_watch import exit_with_parent
from backends.serving.triton import Inputs, make_metrics


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the networks. Triton shows an exception of it as the reason why the model is not ready."""
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        kind, device = args["model_instance_kind"], args["model_instance_device_id"]
        try:
            options = read_options(config.get("parameters", {}))
            swapper = load_swapper(folder, config, kind, device)
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        self._frontend = FaceSwapFrontend(swapper, options)
        gauges, counters, self._families = make_metrics(args["model_name"], GAUGES, COUNTERS)
        self._publisher = MetricsPublisher(self._frontend.stats, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Admit requests and return; their response senders answer them later."""
        dispatch_requests(
            requests,
            FaceSwapResponseSender,
            lambda request, sender: read_request(Inputs(request)),
            self._frontend.add_request,
        )

    def finalize(self) -> None:
        """Fail the active requests, and end every thread."""
        self._frontend.close()
        self._publisher.close()
        self._parent_watch.set()
