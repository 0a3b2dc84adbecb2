"""The model file that Triton loads for `backend: "llm"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone. The folder that contains `backends` goes on Python's path. If that is Triton's own
# backend directory, it has no `__init__.py` and is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.llm.active_request import Request
from backends.llm.engines import read_options
from backends.llm.logprobs_json import TokenBytes
from backends.llm.metrics import metric_names
from backends.llm.model_loader import load_model
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.request_frontend import LLMFrontend
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.llm.structured_outputs.limits import limits_for
from backends.llm.tensors import CUMULATIVE_LOGPROB, TextResponseSender, complete_config, read_request
from backends.serving.dispatch import dispatch_requests
from backends.serving.errors import UnsupportedOption
from backends.serving.metrics_publisher import MetricsPublisher
from backends.serving.parent_watch import exit_with_parent
from backends.serving.tokenizer import load_tokenizer
from backends.serving.triton import Inputs, make_metrics


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Declare the optional tensors that the configuration of an earlier build lacks."""
        complete_config(config)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine. Triton shows an exception of it as the reason why the model is not ready."""
        self._parent_watch = exit_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
            options = read_options(config.get("parameters", {}), gpu)
            tokenizer = load_tokenizer(folder)
            loaded = load_model(folder, tokenizer, options)
            limits = limits_for(options.structure_seconds, options.structure_memory, options.max_rows)
            grammars = GrammarCompiler(tokenizer, loaded.engine.vocab_size, loaded.eos, limits)
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        engine, bos = loaded.engine, None if loaded.bos is None else tokenizer.id_to_token(loaded.bos)
        prompts = PromptTokenizer(
            tokenizer, bos=bos, vocab_size=engine.vocab_size, context_length=engine.context_length
        )
        max_open = options.max_rows + options.max_waiting
        self._frontend = LLMFrontend(engine, prompts, max_open, options.sampling, grammars, loaded.vision_processor)
        self._token_bytes = TokenBytes(tokenizer)
        self._returns_cumulative_logprob = any(output["name"] == CUMULATIVE_LOGPROB for output in config["output"])
        gauges, counters, self._metric_families = make_metrics(args["model_name"], *metric_names(engine.stats))
        self._stats_publisher = MetricsPublisher(engine.stats, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Admit requests and return; their response senders answer them later."""
        dispatch_requests(requests, self._response_sender, self._read_request, self._frontend.add_request)

    def _response_sender(self, request: Any) -> TextResponseSender:
        return TextResponseSender(request, self._token_bytes)

    def _read_request(self, request: Any, sender: TextResponseSender) -> Request:
        inputs = Inputs(request)
        sender.read_requested_outputs(inputs)
        parsed = read_request(inputs)
        if parsed.cumulative_logprob and not self._returns_cumulative_logprob:
            raise UnsupportedOption(
                "The configuration of this model declares no cumulative_logprob.", f"return_{CUMULATIVE_LOGPROB}"
            )
        return parsed

    def finalize(self) -> None:
        """Fail the active requests, and end every thread."""
        self._frontend.close()
        self._stats_publisher.close()
        self._parent_watch.set()
