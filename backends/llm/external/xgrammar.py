"""A structure in the forms that xgrammar takes."""

import json
from typing import Any

from backends.llm.sampling_params import StructuredOutputsParams
from backends.serving.errors import InvalidValue


def to_guide(structure: StructuredOutputsParams) -> dict[str, Any]:
    """Return a structure as `json`, `regex`, `grammar` or `structural_tag` of TensorRT-LLM's `GuidedDecodingParams`.

    Raises `InvalidValue` for a grammar in Lark, which xgrammar does not read.
    """
    match structure.kind:
        case "choice":
            choices = (json.dumps(choice) for choice in json.loads(structure.text))
            return {"grammar": "root ::= " + " | ".join(choices)}
        case "grammar" if "::=" not in structure.text:
            raise InvalidValue("This model takes grammars in GBNF, not in Lark.", "structured_outputs")
        case kind:
            return {kind: structure.text}
