"""What Triton loads for `backend: "embedding"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone, from wherever its backend directory is: the folder that holds the package `backends` is
# put where Python looks. Where that folder is the backend directory's parent, `backends` is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.embedding.encoder import OrtEncoder
from backends.embedding.metrics import COUNTERS, GAUGES
from backends.embedding.options import read_options
from backends.embedding.request_frontend import EmbeddingFrontend
from backends.embedding.scheduler import EmbeddingScheduler
from backends.embedding.tensors import EmbeddingResponseSender, read_request
from backends.embedding.tokenization import InputTokenizer
from backends.serving.dispatch import dispatch_requests
from backends.serving.metrics_publisher import MetricsPublisher
from backends.serving.parent_watch import exit_with_parent
from backends.serving.tokenizer import load_tokenizer
from backends.serving.triton import Inputs, make_metrics


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network. What is wrong with its files or parameters becomes the reason Triton shows."""
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            options = read_options(config.get("parameters", {}))
            tokenizer = load_tokenizer(folder)
            encoder = OrtEncoder(folder)
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        lanes = EmbeddingScheduler(encoder, options.num_threads)
        self._frontend = EmbeddingFrontend(lanes, InputTokenizer(tokenizer, options, encoder.vocab_size), options)
        gauges, counters, self._families = make_metrics(args["model_name"], GAUGES, COUNTERS)
        self._publisher = MetricsPublisher(lanes.stats, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Take requests; their answers come later, through their response senders."""
        dispatch_requests(
            requests,
            EmbeddingResponseSender,
            lambda request, client: read_request(Inputs(request)),
            self._frontend.add_request,
        )

    def finalize(self) -> None:
        """Answer what is open, and end every thread."""
        self._frontend.close()
        self._publisher.close()
        self._parent_watch.set()
