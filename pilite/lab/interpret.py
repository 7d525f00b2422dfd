"""Run a .tflite with a TFLite wheel: in this process, or as a program of an emulated guest.

Knows numpy and the wheel that it is told, nothing else of pilite: the guest has no more.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
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
    """Run every NAME.tflite of a folder: NAME.in.npz holds its sets of equally many arrays, in a row.

    Writes NAME.out.npz likewise, or NAME.error with what the wheel said. One start serves all models: under
    QEMU it costs more than a small model.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("module", "kernels", "folder"):
        parser.add_argument(name)
    parser.add_argument("count", type=int, nargs="+", help="of arrays in a set, for each model in turn")
    options = parser.parse_args()
    models = sorted(Path(options.folder).glob("*.tflite"))
    for model, count in zip(models, options.count, strict=True):
        try:
            _serve(options.module, options.kernels, model, count)
        except (ValueError, RuntimeError) as problem:
            model.with_suffix(".error").write_text(str(problem), encoding="utf-8")


def _serve(module: str, kernels: str, model: Path, count: int) -> None:
    with np.load(model.with_suffix(".in.npz"), allow_pickle=False) as file:
        flat = [file[name] for name in file.files]
    sets = [flat[i : i + count] for i in range(0, len(flat), count)]
    found = outputs(module, kernels, str(model), sets)
    np.savez(model.with_suffix(".out.npz"), *(array for arrays in found for array in arrays))


if __name__ == "__main__":
    main()
