"""TFLite itself, as the truth that pilite's results are compared with.

    tflite_ref      tflite-runtime 2.14, reference kernels: what numerics "ref" promises
    litert_ref      ai-edge-litert, reference kernels: the same except FULLY_CONNECTED
    litert_default  ai-edge-litert with XNNPACK: what numerics "xnnpack" promises

tflite-runtime has wheels up to Python 3.11. On newer ones `tflite_ref` is ai-edge-litert, and models with a
FULLY_CONNECTED are skipped, as are those of 16-bit values that it computes otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy.typing as npt
import pytest

from pilite.compiler import container, schema

Array = npt.NDArray[Any]
TFLITE, LITERT = "tflite_runtime.interpreter", "ai_edge_litert.interpreter"


def tflite_ref(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    if _installed(TFLITE):
        return _run(TFLITE, "BUILTIN_REF", model, inputs)
    if _differs(model):
        pytest.skip("ai-edge-litert computes it otherwise; needs tflite-runtime (Python <= 3.11)")
    return litert_ref(model, inputs)


NEWER = ("FULLY_CONNECTED",)  # in float64
NEWER_OF_INT16 = ("CONV_2D", "EQUAL", "SUM", "TRANSPOSE_CONV")  # 32-bit bias, scales, saturation, no bias


def _differs(model: bytes) -> bool:
    """Whether newer reference kernels may give other bits."""
    file = container.read(model)
    int16 = schema.DTYPES.index("int16")
    wide = any(tensor.number(schema.Tensor.type, "int8") == int16 for tensor in file.tensors)
    return any(o.op in NEWER or (wide and o.op in NEWER_OF_INT16) for o in file.operators)


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


# Models that may crash TFLite, or keep it forever.


@dataclass
class Worker:
    """TFLite in a process of its own, which is started again after a model that ended it."""

    process: BaseProcess | None = None
    connection: Connection | None = None

    def answer(self, model: bytes, inputs: Sequence[Array], seconds: float = 20) -> list[Array] | str:
        """What `tflite_ref` gives, or why it gives nothing."""
        if self.connection is None:
            self.process, self.connection = _started()
        try:
            self.connection.send((model, list(inputs)))
            if self.connection.poll(seconds):
                found: list[Array] | str = self.connection.recv()
                return found
            reason = f"no answer in {seconds} s"
        except (EOFError, OSError):
            reason = "it crashed"
        self.stop()
        return reason

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = self.connection = None


def _started() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(connection: Connection) -> None:
    while True:
        try:
            model, inputs = connection.recv()
        except EOFError:
            return
        try:
            connection.send(tflite_ref(model, inputs))
        except (ValueError, RuntimeError) as refusal:
            connection.send(str(refusal))
