"""Export a sentence-transformers model in a process of its own: `python -I export_process.py '<JSON>'`.

Apart from the build because PyTorch's exporter prints, and keeps what it took of the memory.
"""

import json
import sys
import warnings
from pathlib import Path


def main() -> None:
    """Export what the JSON object in the first argument asks for; see `builders.embedding.export_step.export`."""
    # With `-I` the folder that holds the package `builders` is not on the path, wherever that came from.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from builders.embedding.onnx_export import export
    from builders.llm.export_process import exit_with_parent

    request = json.loads(sys.argv[1])
    exit_with_parent(request["parent"])
    warnings.filterwarnings("ignore")
    export(Path(request["input"]), Path(request["output"]), request["precision"])


if __name__ == "__main__":
    main()
