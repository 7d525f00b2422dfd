"""Load and run compiled models: one file, beside libpilite.so. Needs numpy and nothing else.

    from pilite import Model

    with Model("model.so", threads=4) as model:
        (scores,) = model.run(image)

Without copies: write into `model.inputs[0]`, call `model.invoke()`, read `model.outputs[0]`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

__all__ = ["Model", "PiliteError", "TensorDetails"]

if TYPE_CHECKING:  # boards may have a numpy and a Python that are too old for these names
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = np.ndarray

PathLike = Union[str, "os.PathLike[str]"]

_API_MAJOR = 1
_ALIGN = 64
_MAX_DIMS = 8
_STATUS = ("OK", "IO", "CORRUPT", "ARCH", "ABI", "CPU", "LINK", "ARG", "NOMEM", "RUN", "BUSY")
_DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")  # by enum pilite_dtype


class PiliteError(Exception):
    """A model that cannot be opened or run; `status` is one of the names in pilite.h, e.g. "CPU"."""

    def __init__(self, message: str, status: str = "ARG") -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class TensorDetails:
    """One input or output; real = scale * (q - zero_point), both None if it is not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float | None
    zero_point: int | None


class Model:
    """One session of one artifact.

    threads: how many compute, this one included. cpus: one CPU number per thread, to pin them.
    library: path of libpilite.so; else $PILITE_LIBRARY, the one beside this file, this checkout's build.
    Raises PiliteError if the artifact is refused; its text says why.

    A Model has one caller at a time (a second one gets PiliteError with status BUSY).
    """

    def __init__(
        self,
        path: PathLike,
        threads: int = 1,
        cpus: Sequence[int] | None = None,
        library: PathLike | None = None,
    ) -> None:
        self._handle = ctypes.c_void_p()
        self._lock = threading.Lock()
        self._library = _load_library(library)
        options = _options(threads, cpus)
        out = ctypes.byref(self._handle)
        self._check(self._library.pilite_open(os.fsencode(path), ctypes.byref(options), out))
        info = self._library.pilite_info(self._handle).contents
        self.name: str = info.name.decode()
        self.build_id: str = info.build_id.decode()
        self.target: str = info.target.decode()
        self.input_details = tuple(_details(info.inputs[i]) for i in range(info.n_inputs))
        self.output_details = tuple(_details(info.outputs[i]) for i in range(info.n_outputs))
        self._tensors = tuple(_aligned(d) for d in self.input_details + self.output_details)
        self._bind()

    @property
    def inputs(self) -> tuple[Array, ...]:
        """The input arrays. Write into them, then invoke()."""
        return self._open_tensors()[: len(self.input_details)]

    @property
    def outputs(self) -> tuple[Array, ...]:
        """The output arrays; invoke() overwrites them. They stay readable after close()."""
        return self._open_tensors()[len(self.input_details) :]

    def run(self, *arrays: npt.ArrayLike) -> list[Array]:
        """Copy `arrays` in, compute, and return copies of the outputs.

        Raises PiliteError if number, type or shape of the arrays is not the model's: nothing is converted.
        """
        checked = _checked(arrays, self.input_details)
        with _Exclusive(self._lock):
            for i, array in enumerate(checked):
                np.copyto(self.inputs[i], array)
            self._run()
            return [output.copy() for output in self.outputs]

    def invoke(self) -> None:
        """Compute `outputs` from `inputs`, in place. Other Python threads run meanwhile."""
        with _Exclusive(self._lock):
            self._run()

    def reset(self) -> None:
        """Forget what the model kept between runs (an LSTM's state); most models keep nothing."""
        with _Exclusive(self._lock):
            self._refuse_closed()
            self._check(self._library.pilite_reset(self._handle))

    def close(self) -> None:
        """Stop the threads and free the session, after a run that is under way. Twice is allowed."""
        with self._lock:
            handle, self._handle = self._handle, ctypes.c_void_p()
            if handle:
                self._library.pilite_close(handle)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_library"):  # __init__ may have failed before
            self.close()

    def __repr__(self) -> str:
        state = self.target if self._handle else "closed"
        return f"Model({self.name!r}, {state})"

    def _open_tensors(self) -> tuple[Array, ...]:
        self._refuse_closed()
        return self._tensors

    def _refuse_closed(self) -> None:
        if not self._handle:
            raise PiliteError(f"{self.name}: the model is closed")

    def _run(self) -> None:
        self._refuse_closed()
        self._check(self._library.pilite_run(self._handle))

    def _bind(self) -> None:
        """Let the session use numpy's memory, so that an array may outlive it."""
        for i, tensor in enumerate(self._tensors):
            self._check(self._library.pilite_bind(self._handle, i, tensor.ctypes.data, tensor.nbytes))

    def _check(self, status: int) -> None:
        if status:
            raise PiliteError(self._library.pilite_error().decode(errors="replace"), _STATUS[status])


class _Exclusive:
    """Hold the lock, or raise at once if another thread does."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise PiliteError("the model is running in another thread; open one Model per thread", "BUSY")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Tensor(ctypes.Structure):
    """pilite_tensor"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_uint8),
        ("ndim", ctypes.c_uint8),
        ("quantized", ctypes.c_uint16),
        ("reserved", ctypes.c_uint32),
        ("shape", ctypes.c_int64 * _MAX_DIMS),
        ("nbytes", ctypes.c_uint64),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
    )


class _Info(ctypes.Structure):
    """pilite_model, up to the fields that are used here"""

    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("abi_major", ctypes.c_uint32),
        ("abi_minor", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("build_id", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("cpu_required", ctypes.c_uint64),
        ("n_inputs", ctypes.c_uint32),
        ("n_outputs", ctypes.c_uint32),
        ("inputs", ctypes.POINTER(_Tensor)),
        ("outputs", ctypes.POINTER(_Tensor)),
    )


class _Options(ctypes.Structure):
    """pilite_options"""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("cpus", ctypes.POINTER(ctypes.c_int)),
        ("spin", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "pilite_api_version": (ctypes.c_uint32, []),
    "pilite_error": (ctypes.c_char_p, []),
    "pilite_open": (
        ctypes.c_int,
        [ctypes.c_char_p, ctypes.POINTER(_Options), ctypes.POINTER(ctypes.c_void_p)],
    ),
    "pilite_info": (ctypes.POINTER(_Info), [ctypes.c_void_p]),
    "pilite_bind": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t]),
    "pilite_run": (ctypes.c_int, [ctypes.c_void_p]),
    "pilite_reset": (ctypes.c_int, [ctypes.c_void_p]),
    "pilite_close": (None, [ctypes.c_void_p]),
}


def _find_library() -> Path:
    """Beside this file, as on a board; else where a checkout builds it."""
    here = Path(__file__).resolve().parent
    built = here.parent / "artifacts" / "loader" / platform.machine() / "libpilite.so"
    beside = here / "libpilite.so"
    return built if built.is_file() and not beside.is_file() else beside


def _load_library(path: PathLike | None) -> ctypes.CDLL:
    where = path or os.environ.get("PILITE_LIBRARY") or _find_library()
    try:
        library = ctypes.CDLL(os.fspath(where))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise PiliteError(f"{where}: not a usable libpilite.so: {error}", "LINK") from error
    version = library.pilite_api_version()
    if version >> 16 != _API_MAJOR:
        raise PiliteError(f"{where}: API {version >> 16}; this file needs {_API_MAJOR}: update both", "ABI")
    return library


def _options(threads: int, cpus: Sequence[int] | None) -> _Options:
    """pilite_options, which keeps the array of CPU numbers alive. Raises PiliteError for wrong counts."""
    if not 1 <= threads <= 0xFFFF:
        raise PiliteError(f"threads is {threads}; at least 1 is needed")
    if cpus is not None and len(cpus) != threads:
        raise PiliteError(f"cpus names {len(cpus)} CPUs for {threads} threads; give one per thread")
    numbers = (ctypes.c_int * threads)(*cpus) if cpus is not None else None
    return _Options(ctypes.sizeof(_Options), threads, numbers, 0, 0)


def _details(t: _Tensor) -> TensorDetails:
    quantized = bool(t.quantized)
    return TensorDetails(
        name=t.name.decode(errors="replace"),
        shape=tuple(t.shape[: t.ndim]),
        dtype=np.dtype(_DTYPES[t.dtype]),
        scale=t.scale if quantized else None,
        zero_point=t.zero_point if quantized else None,
    )


def _aligned(details: TensorDetails) -> Array:
    """A zeroed array whose data begins at a multiple of 64."""
    nbytes = int(np.prod(details.shape, dtype=np.int64)) * details.dtype.itemsize
    memory = np.zeros(nbytes + _ALIGN, np.uint8)
    start = -memory.ctypes.data % _ALIGN
    return memory[start : start + nbytes].view(details.dtype).reshape(details.shape)


def _checked(arrays: Sequence[npt.ArrayLike], details: Sequence[TensorDetails]) -> list[Array]:
    if len(arrays) != len(details):
        raise PiliteError(f"{len(arrays)} arrays given; the model has {len(details)} inputs")
    checked = [np.asarray(array) for array in arrays]
    for i, wanted in enumerate(details):
        array = checked[i]
        if array.dtype != wanted.dtype or array.shape != wanted.shape:
            raise PiliteError(
                f"{wanted.name}: needs {wanted.dtype} {wanted.shape}, got {array.dtype} {array.shape}"
            )
    return checked
