"""What TFLite leaves open in the outputs of TFLite_Detection_PostProcess, set to 0 before a comparison.

Fast suppression writes as many boxes as it finds; behind them is whatever was in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite
from flatbuffers import flexbuffers

Array = npt.NDArray[Any]
NAME = b"TFLite_Detection_PostProcess"


def settled(model: bytes, outputs: Sequence[Array]) -> list[Array]:
    """The outputs of the .tflite `model`, in the graph's order, with zeros where TFLite wrote nothing."""
    root = tflite.Model.GetRootAs(model, 0)
    graph = root.Subgraphs(0)
    places = {graph.Outputs(i): i for i in range(graph.OutputsLength())}
    result = list(outputs)
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        own = [operator.Outputs(k) for k in range(operator.OutputsLength())]
        if root.OperatorCodes(operator.OpcodeIndex()).CustomCode() == NAME and set(own) <= places.keys():
            *lists, number = (places[tensor] for tensor in own)
            for place in lists:
                used = _used(operator, result[place].shape, float(result[number].flat[0]))
                result[place] = np.where(used, result[place], np.float32(0))
    return result


def _used(operator: Any, shape: tuple[int, ...], number: float) -> npt.NDArray[np.bool_]:
    """Which entries of boxes, classes or scores belong to one of `number` detections."""
    options = flexbuffers.GetRoot(bytearray(operator.CustomOptionsAsNumpy().tobytes())).AsMap
    per_box, classes = options["max_classes_per_detection"].AsInt, options["num_classes"].AsInt
    at = np.arange(shape[1])
    used: npt.NDArray[np.bool_] = (at < number * per_box) & (at % per_box < classes)
    return used.reshape(1, -1, *(1,) * (len(shape) - 2))
