"""The model file that Triton loads for `backend: "diffusion"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path. If that is Triton's own
# backend directory, it has no `__init__.py` and is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.diffusion.image_frontend import ImageFrontend
from backends.diffusion.loading import load_pipeline
from backends.diffusion.metrics import COUNTERS, GAUGES
from backends.diffusion.tensors import ImageResponseSender, VideoResponseSender, read_request, read_video_request
from backends.serving.bls import TritonComponents
from backends.serving.dispatch import dispatch_requests
from backends.serving.metrics_publisher import MetricsPublisher
from backends.serving.parent_watch import exit_with_parent
from backends.serving.triton import Inputs, make_metrics


class TritonPythonModel:
    """One instance of a pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the configuration. Triton shows an exception of it as the reason why the model is not ready.

        The components may be loaded later: the first request is the first to call them.
        """
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            self._frontend, stats = load_pipeline(folder, config.get("parameters", {}), TritonComponents())
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        gauges, counters, self._families = make_metrics(args["model_name"], GAUGES, COUNTERS)
        self._publisher = MetricsPublisher(stats, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Admit requests and return; their response senders answer them later."""
        frontend = self._frontend
        if isinstance(frontend, ImageFrontend):
            dispatch_requests(
                requests,
                ImageResponseSender,
                lambda request, sender: read_request(Inputs(request)),
                frontend.add_request,
            )
        else:
            dispatch_requests(
                requests,
                VideoResponseSender,
                lambda request, sender: read_video_request(Inputs(request)),
                frontend.add_request,
            )

    def finalize(self) -> None:
        """Fail the active requests, and end every thread."""
        self._frontend.close()
        self._publisher.close()
        self._parent_watch.set()
