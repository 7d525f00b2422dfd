"""Run a .tflite with a TFLite wheel: in this process, or as a program of an emulated guest.

Knows numpy and the wheel that it is told, nothing else of pilite: the guest has no more.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def outputs(module: str, kernels: str, model: str, sets: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """The model's outputs for each set of inputs, 1 thread.

    module: the wheel's module that has Interpreter; kernels: a name of its OpResolverType. Raises what the
    wheel raises: ValueError or RuntimeError where it refuses the model.
    """
    tflite = importlib.import_module(module)
    resolver = getattr(tflite.OpResolverType, kernels)
    network = tflite.Interpreter(model_path=model, experimental_op_resolver_type=resolver, num_threads=1)
    network.allocate_tensors()
    return [_run(network, arrays) for arrays in sets]


def _run(network: Any, arrays: Sequence[Array]) -> list[Array]:
    network.reset_all_variables()  # an LSTM must not remember the set before
    for details, array in zip(network.get_input_details(), arrays, strict=True):
        network.set_tensor(details["index"], array)
    network.invoke()
    return [network.get_tensor(details["index"]) for details in network.get_output_details()]


def main() -> None:
    """Sets of equally many arrays travel as one .npz, in a row."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("module", "kernels", "model", "inputs", "outputs"):
        parser.add_argument(name)
    parser.add_argument("count", type=int, help="of arrays in a set")
    options = parser.parse_args()
    with np.load(options.inputs, allow_pickle=False) as file:
        flat = [file[name] for name in file.files]
    sets = [flat[i : i + options.count] for i in range(0, len(flat), options.count)]
    found = outputs(options.module, options.kernels, options.model, sets)
    np.savez(options.outputs, *(array for arrays in found for array in arrays))


if __name__ == "__main__":
    main()
