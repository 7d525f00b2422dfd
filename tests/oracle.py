"""TFLite itself, as the truth that pilite's results are compared with.

    tflite_ref      tflite-runtime 2.14, reference kernels: what numerics "ref" promises
    litert_ref      ai-edge-litert, reference kernels: the same except FULLY_CONNECTED
    litert_default  ai-edge-litert with XNNPACK: what numerics "xnnpack" promises

tflite-runtime has wheels up to Python 3.11. On newer ones `tflite_ref` is ai-edge-litert, and models with a
FULLY_CONNECTED are skipped.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import pytest

from pilite.compiler import container

Array = npt.NDArray[Any]
TFLITE, LITERT = "tflite_runtime.interpreter", "ai_edge_litert.interpreter"


def tflite_ref(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    if _installed(TFLITE):
        return _run(TFLITE, "BUILTIN_REF", model, inputs)
    if any(operator.op == "FULLY_CONNECTED" for operator in container.read(model).operators):
        pytest.skip("ai-edge-litert rounds FULLY_CONNECTED in float64; needs tflite-runtime (Python <= 3.11)")
    return litert_ref(model, inputs)


def litert_ref(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    return _run(LITERT, "BUILTIN_REF", model, inputs)


def litert_default(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    return _run(LITERT, "AUTO", model, inputs)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def _run(module: str, kernels: str, model: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Outputs in the graph's order; raises ValueError or RuntimeError where TFLite refuses the model."""
    if not _installed(module):
        pytest.skip(f"{module.partition('.')[0]} is not installed")
    library = importlib.import_module(module)
    resolver = getattr(library.OpResolverType, kernels)
    interpreter = library.Interpreter(
        model_content=model, experimental_op_resolver_type=resolver, num_threads=1
    )
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
