"""The model file that Triton loads for `backend: "upscaling"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path. If that is Triton's own
# backend directory, it has no `__init__.py` and is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.serving.bls import TritonComponents
from backends.serving.dispatch import dispatch_requests
from backends.serving.metrics_publisher import MetricsPublisher
from backends.serving.parent_watch import exit_with_parent
from backends.serving.triton import Inputs, make_metrics
from backends.upscaling.metrics import COUNTERS, GAUGES
from backends.upscaling.network import load_network, scheduler_threads
from backends.upscaling.options import read_options
from backends.upscaling.request_frontend import UpscalingFrontend
from backends.upscaling.scheduler import UpscaleScheduler
from backends.upscaling.tensors import UpscalingResponseSender, read_request


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network. Triton shows an exception of it as the reason why the model is not ready."""
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        kind, device = args["model_instance_kind"], args["model_instance_device_id"]
        try:
            options = read_options(config.get("parameters", {}))
            network = load_network(folder, config, options, kind, device, TritonComponents)
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        scheduler = UpscaleScheduler(network, scheduler_threads(options, kind), options.max_rows)
        self._frontend = UpscalingFrontend(scheduler, options)
        gauges, counters, self._families = make_metrics(args["model_name"], GAUGES, COUNTERS)
        self._publisher = MetricsPublisher(scheduler.stats, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Admit requests and return; their response senders answer them later."""
        dispatch_requests(
            requests,
            UpscalingResponseSender,
            lambda request, sender: read_request(Inputs(request)),
            self._frontend.add_request,
        )

    def finalize(self) -> None:
        """Fail the active requests, and end every thread."""
        self._frontend.close()
        self._publisher.close()
        self._parent_watch.set()
