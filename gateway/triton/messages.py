"""The messages of the KServe protocol, which tritonclient generates from its definition.

The package `tritonclient.grpc` also imports grpcio and what its own clients need, which takes 10 MB of memory in each
process. The modules of the messages need none of it, and are loaded here without the package.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

_PACKAGE = "tritonclient.grpc"


def _import_messages() -> None:
    """Import the modules of the messages, and leave the package to whoever imports it later."""
    if _PACKAGE in sys.modules:
        return
    spec = PathFinder.find_spec("tritonclient")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'tritonclient'", name="tritonclient")
    package = ModuleType(_PACKAGE)
    package.__path__ = [f"{folder}/grpc" for folder in spec.submodule_search_locations]
    sys.modules[_PACKAGE] = package
    try:
        import_module(f"{_PACKAGE}.service_pb2")
    finally:
        del sys.modules[_PACKAGE]


if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2, service_pb2
else:
    _import_messages()
    model_config_pb2 = sys.modules[f"{_PACKAGE}.model_config_pb2"]
    service_pb2 = sys.modules[f"{_PACKAGE}.service_pb2"]

__all__ = ["model_config_pb2", "service_pb2"]
