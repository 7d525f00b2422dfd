"""pilite: quantized TFLite models as small shared libraries for Raspberry Pis, with TFLite's very bits.

    pilite.compile   model.tflite -> artifact, on the host     (pilite/compiler/pipeline.py)
    pilite.Graph     what a model is after reading it          (pilite/compiler/graph.py)
    pilite.Model     run an artifact on this machine           (loader/pilite.py, one file to copy to a board)

The names load on first use, so that importing pilite costs nothing and needs no TVM on a board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loader.pilite import Model as Model
    from pilite.compiler.graph import Graph as Graph
    from pilite.compiler.pipeline import build as compile

__all__ = ["Graph", "Model", "compile"]

VERSION = "0.1.0"  # of releases; the ABI has a version of its own (loader/ABI.md)

HOMES = {  # name here -> (module, name there)
    "Graph": ("pilite.compiler.graph", "Graph"),
    "Model": ("loader.pilite", "Model"),
    "compile": ("pilite.compiler.pipeline", "build"),
}


def __getattr__(name: str) -> Any:
    """Load one of the public names (PEP 562)."""
    from importlib import import_module

    if name not in HOMES:
        raise AttributeError(f"module 'pilite' has no attribute '{name}'; it has {', '.join(__all__)}")
    module, attribute = HOMES[name]
    return getattr(import_module(module), attribute)
