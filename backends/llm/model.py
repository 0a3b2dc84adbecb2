"""What Triton loads for `backend: "llm"`."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton loads this file alone, from wherever its backend directory is: the folder that holds the package `backends` is
# put where Python looks. Where that folder is the backend directory's parent, `backends` is a namespace package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils

from backends.llm.desk import Desk
from backends.llm.exchange import Request
from backends.llm.loading import load
from backends.llm.logprobs import TokenBytes
from backends.llm.metrics import COUNTERS, GAUGES
from backends.llm.options import read_options
from backends.llm.prompt import Prompts
from backends.llm.structures.grammars import Grammars
from backends.llm.structures.limits import limits_of
from backends.llm.tensors import SUMS, TritonClient, complete, read_request
from backends.serving.errors import UnsupportedOption
from backends.serving.lifeline import end_with_parent
from backends.serving.publisher import Publisher
from backends.serving.taking import take_all
from backends.serving.tokenizer import load_tokenizer
from backends.serving.triton import Inputs, make_metrics


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Give a model that was built before the optional tensors it lacks."""
        complete(config)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine. What is wrong with its files or parameters becomes the reason Triton shows."""
        self._lifeline = end_with_parent()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            options = read_options(config.get("parameters", {}))
            tokenizer = load_tokenizer(folder)
            loaded = load(folder, tokenizer, options)
            limits = limits_of(options.structure_seconds, options.structure_memory, options.max_rows)
            grammars = Grammars(tokenizer, loaded.engine.vocab_size, loaded.eos, limits)
        except Exception as error:
            raise pb_utils.TritonModelException(f"The model in {folder} cannot be loaded: {error}") from error
        engine, bos = loaded.engine, None if loaded.bos is None else tokenizer.id_to_token(loaded.bos)
        prompts = Prompts(tokenizer, bos=bos, vocab_size=engine.vocab_size, context_length=engine.context_length)
        max_open = options.max_rows + options.max_waiting
        self._desk = Desk(engine, prompts, max_open, options.sampling, grammars, loaded.sight)
        self._tokens = TokenBytes(tokenizer)
        self._tells_sums = any(output["name"] == SUMS for output in config["output"])
        gauges, counters, self._families = make_metrics(args["model_name"], GAUGES, COUNTERS)
        self._publisher = Publisher(engine.figures, gauges, counters)

    def execute(self, requests: list[Any]) -> None:
        """Take requests; their answers come later, through their response senders."""
        take_all(requests, self._client, self._read, self._desk.take)

    def _client(self, request: Any) -> TritonClient:
        return TritonClient(request, self._tokens)

    def _read(self, request: Any, client: TritonClient) -> Request:
        inputs = Inputs(request)
        client.read_wishes(inputs)
        asked = read_request(inputs)
        if asked.cumulative_logprob and not self._tells_sums:
            raise UnsupportedOption("The configuration of this model declares no cumulative_logprob.", f"return_{SUMS}")
        return asked

    def finalize(self) -> None:
        """Answer what is open, and end every thread."""
        self._desk.close()
        self._publisher.close()
        self._lifeline.set()
