"""What is right: outputs of a TFLite by name, computed here or as on a Raspberry Pi's core under QEMU.

The reference kernels give the same bytes on every machine, so they run on this one. All others round by the
CPU that they find, and run as on the CPU that they are compared with.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import detections, execute, hostcpu, interpret, roots, wheels

Array = npt.NDArray[Any]
Arrays = Sequence[Array]

LIMIT_S = 1800.0  # of one emulated runtime


@dataclass(frozen=True)
class Runtime:
    """A package, the module with its Interpreter, and which of its kernels (a name of OpResolverType)."""

    package: str
    module: str
    kernels: str
    label: str
    lock: Path = wheels.LOCK  # another one pins an older version, which only a guest can have

    @property
    def is_reference(self) -> bool:
        return self.kernels == "BUILTIN_REF"


OLDER = Path(__file__).with_name("older.lock")
_TFLITE = ("tflite-runtime", "tflite_runtime.interpreter")
_LITERT = ("ai-edge-litert", "ai_edge_litert.interpreter")

# Everything that ships under the name TFLite. tflite-runtime's default delegates no quantized operator.
RUNTIMES = {
    "tflite": Runtime(*_TFLITE, "AUTO", "default"),
    "tflite-ref": Runtime(*_TFLITE, "BUILTIN_REF", "BUILTIN_REF"),
    "litert": Runtime(*_LITERT, "AUTO", "default (XNNPACK)"),
    "litert-ref": Runtime(*_LITERT, "BUILTIN_REF", "BUILTIN_REF"),
    "litert-1.4": Runtime(*_LITERT, "AUTO", "default (XNNPACK)", OLDER),
    "litert-builtin": Runtime(*_LITERT, "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "without delegates"),
}

# Whose bytes an artifact promises, by its numerics and its FULLY_CONNECTED variant.
PROMISED = {
    ("ref", "q31"): "tflite-ref",
    ("ref", "f64"): "litert-ref",
    ("xnnpack", "q31"): "litert",
    ("xnnpack", "f64"): "litert",
}
# Of `xnnpack` for a CPU that is no Pi's: XNNPACK rounds otherwise on x86-64.
PROMISED_CPU = "cortex-a72"
ALIKE = ({PROMISED_CPU, "cortex-a76"},)  # cores whose bytes are the same; a Cortex-A53's are not for uint8
REFERENCES = ("tflite-ref", "litert-ref")  # the first that is installed; tflite-runtime ends at Python 3.11


@dataclass(frozen=True)
class Oracle:
    """A runtime of RUNTIMES, its version, and the CPU that it runs on (None: whichever)."""

    key: str
    version: str
    cpu: str | None = None

    @property
    def runtime(self) -> Runtime:
        return RUNTIMES[self.key]

    @property
    def emulated(self) -> bool:
        return self.cpu is not None and hostcpu.arch_of(self.cpu) != platform.machine()

    @property
    def name(self) -> str:
        """What results say: "tflite-runtime 2.14.0 BUILTIN_REF"."""
        kernels = f"{self.runtime.package} {self.version} {self.runtime.label}"
        if self.cpu is None:
            return kernels
        return f"{kernels} on {f'{self.cpu} under QEMU' if self.emulated else platform.machine()}"


# Which one.


def choose(text: str, cpu: str) -> Oracle:
    """The oracle that `--against RUNTIME[@CPU]` asks for; without CPU on the artifact's, where it matters.

    Raises:
        PiliteError: an unknown runtime or CPU, or one that is not installed here.
        BoardError: a CPU that this machine neither is nor can emulate.
    """
    key, at, core = text.partition("@")
    if key not in RUNTIMES or (at and core not in hostcpu.known()):
        raise PiliteError(
            f"--against {text}: write RUNTIME or RUNTIME@CPU; runtimes: {', '.join(RUNTIMES)}; "
            f"CPUs: {', '.join(hostcpu.known())}."
        )
    where = core or (None if RUNTIMES[key].is_reference else cpu)
    found = Oracle(key, "", where)
    package = found.runtime.package
    if not found.emulated:
        if found.runtime.lock == OLDER:
            raise PiliteError(f"{key} runs as on a Pi's core only: --against {key}@{PROMISED_CPU}.")
        if not is_installed(package):
            raise PiliteError(f"{package} is not installed here: it has no wheel for this Python.")
        return Oracle(key, metadata.version(package), where)
    if hostcpu.arch_of(str(where)) != "aarch64":
        raise BoardError(f"--against {text}: only Raspberry Pi cores can be emulated; {where} cannot.")
    pin, _ = wheels.locked(package, found.runtime.lock)
    return Oracle(key, str(pin.specifier).removeprefix("=="), where)


def judge(against: str, numerics: str, fully_connected: str, cpu: str) -> Oracle:
    """What an artifact is compared with: the value of `--against`, or the promised one if that is empty."""
    return choose(against, cpu) if against else promised(numerics, fully_connected, cpu)


def promised(numerics: str, fully_connected: str, cpu: str) -> Oracle:
    """The TFLite whose bytes are promised, or other reference kernels where that has no wheel.

    Raises PiliteError if no TFLite is installed.
    """
    key = PROMISED[numerics, fully_connected]
    runtime = RUNTIMES[key]
    if not runtime.is_reference:
        return choose(key, promised_core(cpu))
    return choose(key, cpu) if is_installed(runtime.package) else reference()


def promised_core(cpu: str) -> str:
    """The core as on which LiteRT rounds what numerics xnnpack promises for `cpu`."""
    return cpu if hostcpu.arch_of(cpu) == "aarch64" else PROMISED_CPU


def is_promised(oracle: Oracle, numerics: str, fully_connected: str, cpu: str) -> bool:
    """Whether this oracle's bytes are those that the artifact for `cpu` promises."""
    found, wanted = oracle.runtime, RUNTIMES[PROMISED[numerics, fully_connected]]
    if (found.package, found.kernels) != (wanted.package, wanted.kernels):
        return False
    core = promised_core(cpu)
    return found.is_reference or oracle.cpu == core or any({oracle.cpu, core} <= same for same in ALIKE)


def stands_in(oracle: Oracle, numerics: str, fully_connected: str) -> bool:
    """Whether it takes the place of a promised one that has no wheel for this Python."""
    wanted = PROMISED[numerics, fully_connected]
    return (
        oracle.key != wanted
        and {oracle.key, wanted} <= set(REFERENCES)
        and not is_installed(RUNTIMES[wanted].package)
    )


def is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def reference() -> Oracle:
    """Reference kernels of this environment. Raises PiliteError if no TFLite is installed."""
    for key in REFERENCES:
        package = RUNTIMES[key].package
        if is_installed(package):
            return Oracle(key, metadata.version(package))
    raise PiliteError(
        "No TFLite to compare with: neither tflite-runtime nor ai-edge-litert is installed here."
    )


# What it computes.


def expected(oracle: Oracle, model: Path, inputs: Arrays, artifacts: Path) -> list[Array]:
    """The model's outputs for one set of inputs; computed once per (oracle, model, inputs)."""
    kept = artifacts / "oracle" / f"{_key(oracle, model, inputs)}.npz"
    if not kept.is_file():
        _keep(kept, compute(oracle, model, [inputs], artifacts)[0])
    with np.load(kept, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


def compute(oracle: Oracle, model: Path, sets: Sequence[Arrays], artifacts: Path) -> list[list[Array]]:
    """The model's outputs for each set of inputs; reference kernels need a second or more for a MobileNet.

    Raises:
        CheckFailed: the runtime refused the model or failed.
        BoardError, PiliteError: the emulator, its Debian or a wheel is missing.
    """
    data = model.read_bytes()
    if oracle.emulated:
        (found,) = emulated(oracle, [(data, sets)], artifacts)
        if isinstance(found, str):
            raise _refusal(oracle, found)
        return [detections.settled(data, outputs) for outputs in found]
    try:
        all_outputs = interpret.outputs(oracle.runtime.module, oracle.runtime.kernels, str(model), sets)
        return [detections.settled(data, outputs) for outputs in all_outputs]
    except (ValueError, RuntimeError) as problem:
        raise _refusal(oracle, str(problem)) from None


def emulated(
    oracle: Oracle, jobs: Sequence[tuple[bytes, Sequence[Arrays]]], artifacts: Path
) -> list[list[list[Array]] | str]:
    """For each (model, sets of inputs) its outputs by set, or why the runtime refused it; one start for all.

    Raises:
        CheckFailed: the runtime crashed or took too long.
        BoardError, PiliteError: the emulator, its Debian or a wheel is missing.
    """
    cpu, runtime = str(oracle.cpu), oracle.runtime
    root = roots.view(cpu, artifacts)
    site = roots.site({wheels.NUMPY: wheels.LOCK, runtime.package: runtime.lock}, artifacts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stems = [folder / f"{i:05d}" for i in range(len(jobs))]
        for stem, (model, sets) in zip(stems, jobs, strict=True):
            stem.with_suffix(".tflite").write_bytes(model)
            np.savez(stem.with_suffix(".in.npz"), *(array for arrays in sets for array in arrays))
        program = [str(root / roots.PYTHON), str(Path(interpret.__file__).resolve())]
        words = [runtime.module, runtime.kernels, name, *(str(len(sets[0])) for _, sets in jobs)]
        _run(oracle, [*execute.emulator(cpu, root), *program, *words], site)
        return [_told(stem, len(sets)) for stem, (_, sets) in zip(stems, jobs, strict=True)]


def _told(stem: Path, sets: int) -> list[list[Array]] | str:
    error = stem.with_suffix(".error")
    if error.is_file():
        return error.read_text(encoding="utf-8")
    with np.load(stem.with_suffix(".out.npz"), allow_pickle=False) as file:
        flat = [file[name] for name in file.files]
    count = len(flat) // sets
    return [flat[i * count : (i + 1) * count] for i in range(sets)]


def _run(oracle: Oracle, command: Sequence[str], site: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{oracle.name}: no end after {LIMIT_S:.0f} s.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise _refusal(oracle, last)


def _refusal(oracle: Oracle, why: str) -> CheckFailed:
    return CheckFailed(f"{oracle.name} did not run the model: {' '.join(why.split())[:300]}")


def _key(oracle: Oracle, model: Path, inputs: Arrays) -> str:
    digest = hashlib.sha256(oracle.name.encode() + hashlib.sha256(model.read_bytes()).digest())
    for array in inputs:
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:32]


def _keep(path: Path, outputs: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    np.savez(data, *outputs)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data.getvalue())
    beside.replace(path)
