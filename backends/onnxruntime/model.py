"""The model file that Triton loads for `backend: "onnxruntime"` if NVIDIA's backend of that name is not installed."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path. If that is Triton's own
# backend directory, it has no `__init__.py` and is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import onnxruntime
import triton_python_backend_utils as pb_utils

from backends.onnxruntime.batching import BatchRunner, TensorMap, has_batch_dimension
from backends.onnxruntime.options import read_options
from backends.onnxruntime.session import Session
from backends.serving.execution_providers import choose_providers
from backends.serving.parent_watch import exit_with_parent

_log = logging.getLogger(__name__)


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file. Triton shows an exception of it as the reason why the model is not ready."""
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            options = read_options(config)
            kind, device = args["model_instance_kind"], args["model_instance_device_id"]
            if kind == "GPU":
                onnxruntime.preload_dlls()  # from NVIDIA's packages, where CUDA and cuDNN are not in the system
            providers = choose_providers(config, kind, device, onnxruntime.get_available_providers())
            session = Session(folder, config, options, providers)
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        if options.unknown_parameters:
            _log.warning(
                "%s: the unknown parameters %s are ignored.", args["model_name"], ", ".join(options.unknown_parameters)
            )
        self._runner = BatchRunner(session.run, batched=has_batch_dimension(config))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return the responses to the requests of one call, in their order."""
        parsed = [
            (request.requested_output_names(), {tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
            for request in requests
        ]
        return [_response(result) for result in self._runner.run_all(parsed)]

    def finalize(self) -> None:
        """Free the model."""
        del self._runner
        self._parent_watch.set()


def _response(result: TensorMap | Exception) -> Any:
    if isinstance(result, Exception):
        message = f"[engine_failed] The model could not be run: {str(result)[:1000]}"
        return pb_utils.InferenceResponse([], pb_utils.TritonError(message))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in result.items()])
