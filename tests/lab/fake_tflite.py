"""A stand-in for tflite_runtime.interpreter with a clock of its own, which test_measure.py puts on a path.

The .tflite file is JSON: {"ms": time of one run, "load_ms": ..., "then": what happens in run number "at",
"slower_ms": more "until" that run, "grow_ms": more with every run, "real_ms": on the wall's clock}.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

now_ns = 0


def wait(ms: float) -> None:
    """Let time pass, on the fake clock only."""
    global now_ns
    now_ns += round(ms * 1e6)


time.perf_counter_ns = lambda: now_ns


class Interpreter:
    """y = x + threads; prints where it should not."""

    def __init__(self, model_path: str, num_threads: int) -> None:
        self._plan: dict[str, Any] = json.loads(Path(model_path).read_text())
        self._threads, self._runs = num_threads, 0
        self._tensors: dict[int, Any] = {}
        print("INFO: a line on stdout")
        wait(self._plan.get("load_ms", 0))

    def allocate_tensors(self) -> None:
        """Nothing to allocate."""

    def get_input_details(self) -> list[dict[str, int]]:
        return [{"index": 0}]

    def get_output_details(self) -> list[dict[str, int]]:
        return [{"index": 1}]

    def set_tensor(self, index: int, array: Any) -> None:
        self._tensors[index] = array

    def get_tensor(self, index: int) -> Any:
        return self._tensors[index]

    def invoke(self) -> None:
        self._runs += 1
        first = self._plan.get("first_ms", 0) if self._runs == 1 else 0
        slower = self._plan.get("slower_ms", 0) if self._runs <= self._plan.get("until", 0) else 0
        grown = self._runs * self._plan.get("grow_ms", 0)
        wait(self._plan["ms"] / self._threads + first + slower + grown)
        time.sleep(self._plan.get("real_ms", 0) / 1e3)
        self._tensors[1] = (self._tensors[0] + np.int8(self._threads)).astype(np.int8)
        if self._runs == self._plan.get("at"):
            self._misbehave()

    def _misbehave(self) -> None:
        what = self._plan["then"]
        if what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "exit":
            os._exit(3)
        if what == "raise":
            raise RuntimeError("no such kernel")
        if what == "hang":
            signal.pause()
