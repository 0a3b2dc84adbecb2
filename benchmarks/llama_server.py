"""llama.cpp's own server, over HTTP, until it is ended: `python -m benchmarks.llama_server WEIGHTS.gguf --port PORT`.

It comes from PyPI as xllamacpp, which links the server's code whole: routes, slots and continuous batching.
"""

import argparse
import signal
from pathlib import Path

CONTEXT_TOKENS = 512
"""Tokens of prompt and answer together that each slot has."""


def main() -> None:
    """Serve."""
    import xllamacpp

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="model", help="what clients call the model")
    parser.add_argument("--slots", type=int, default=16, help="requests that run side by side")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--template", type=Path, help="the checkpoint's chat template, where the weights have none")
    asked = parser.parse_args()

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(asked.weights)
    parameters.model_alias = {asked.name}
    parameters.port = asked.port
    parameters.n_parallel = asked.slots
    parameters.n_ctx = asked.slots * CONTEXT_TOKENS
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = asked.threads
    parameters.verbosity = 1
    if asked.template:
        parameters.chat_template = asked.template.read_text()
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
