"""Runs in the guest: load a model, warm up, make one inference between two marks. Knows its wheels only."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
from typing import Any

import numpy as np

WARM, START, STOP = 0x5A0, 0x5A1, 0x5A2


def mark(which: int) -> None:
    """A system call that the kernel refuses, and QEMU's plugin sees."""
    with contextlib.suppress(OSError):
        os.getpriority(which, 0)


def interpreter(runtime: str, model: str, builtin: bool, threads: int) -> Any:
    """The runtime's interpreter; `builtin`: without the delegate that it would apply by itself."""
    if runtime == "tflite":
        import tflite_runtime.interpreter as library
    else:
        from ai_edge_litert import interpreter as library
    options: dict[str, Any] = {"num_threads": threads}
    if builtin:
        options["experimental_op_resolver_type"] = library.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return library.Interpreter(model, **options)


def fill(network: Any) -> None:
    """Seeded inputs: uniform bytes, or real numbers from -1 to 1."""
    rng = np.random.default_rng(0)
    for detail in network.get_input_details():
        data = rng.integers(0, 256, detail["shape"]).astype(np.uint8)
        is_byte = np.dtype(detail["dtype"]).itemsize == 1
        value = data.view(detail["dtype"]) if is_byte else (data / 127.5 - 1).astype(detail["dtype"])
        network.set_tensor(detail["index"], value)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("runtime", choices=["tflite", "litert"])
    parser.add_argument("--builtin", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    network = interpreter(options.runtime, options.model, options.builtin, options.threads)
    network.allocate_tensors()
    fill(network)
    mark(WARM)
    network.invoke()
    mark(START)
    network.invoke()
    mark(STOP)
    digest = hashlib.sha256()
    for detail in network.get_output_details():
        digest.update(network.get_tensor(detail["index"]).tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
