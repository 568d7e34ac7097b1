"""The BLAS that NumPy has loaded, called by address, and how products are given to it.

Bits of a product depend on the shape, on the layout of the operands and on the number of threads of BLAS. So all three
are fixed, alike for both modes: operands are row-major (`kinds.MatMul`), BLAS runs on one thread, and large products are
cut into blocks that depend on the shape alone (`blocks`), one BLAS call each, which the pool of this package may run in
parallel. The number of threads changes nothing. Where no BLAS is found products go through `numpy.matmul`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dualgraph.dtypes import COMPUTED_FLOATS, Table

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112  # CBLAS

_PREFIX = Table("the letter of a BLAS function", COMPUTED_FLOATS, {"float32": "s", "float64": "d"})
_SCALAR: Table[Any] = Table("BLAS", COMPUTED_FLOATS, {"float32": ctypes.c_float, "float64": ctypes.c_double})
# Names of the C interface in known builds, and whether their integers have 64 bits.
_NAMES = (
    ("scipy_cblas_{}gemm64_", True),
    ("cblas_{}gemm64_", True),
    ("scipy_cblas_{}gemm", False),
    ("cblas_{}gemm", False),
)
_THREADS = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)

_LEAST = 1 << 19  # multiply-adds below which a block is not halved: about 6 microseconds
_ENOUGH = 3 << 26  # ... and below which it is not halved once there are four blocks: about 2 milliseconds
_FEW, _MANY = 4, 64  # blocks
_SIDE = 128  # sides below this are not halved
_LEAST_VECTOR, _MANY_VECTOR = 1 << 20, 16  # the same for matrix times vector, which waits for memory


class Gemm(NamedTuple):
    """The functions `cblas_?gemm` and `cblas_?gemv`; `wide`: their integers have 64 bits."""

    address: int
    vector_address: int
    wide: bool
    symbol: str


class Blas(NamedTuple):
    """A BLAS library in this process. `threads`: how many it uses for others; products of this package use one."""

    name: str
    version: str
    architecture: str
    threads: int
    path: str
    gemms: dict[str, Gemm]
    thread_functions: tuple[int, int] | None  # addresses: get, set


@functools.cache
def info() -> Blas | None:
    """The BLAS of NumPy, or None where none with known names passes a trial."""
    import threadpoolctl

    libraries = [lib for lib in threadpoolctl.threadpool_info() if lib.get("user_api") == "blas"]
    for library in sorted(libraries, key=lambda lib: "numpy" not in lib["filepath"]):
        found = _open(library)
        if found is not None:
            return found
    return None


def _open(library: dict[str, Any]) -> Blas | None:
    try:
        handle = ctypes.CDLL(library["filepath"])
    except OSError:
        return None
    gemms = {}
    for dtype in _PREFIX:
        found = _find(handle, dtype)
        if found is None or not _works(found, dtype):
            return None
        gemms[dtype] = found
    pairs = [tuple(_address(handle, name) for name in pair) for pair in _THREADS]
    functions = next(((get, put) for get, put in pairs if get and put), None)
    return Blas(
        library.get("internal_api", "?"),
        library.get("version") or "?",
        library.get("architecture", "?"),
        library.get("num_threads", 0),
        library["filepath"],
        gemms,
        functions,
    )


def _address(handle: ctypes.CDLL, name: str) -> int:
    try:
        return ctypes.cast(getattr(handle, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def _find(handle: ctypes.CDLL, dtype: str) -> Gemm | None:
    for form, wide in _NAMES:
        symbol = form.format(_PREFIX[dtype])
        address, vector = _address(handle, symbol), _address(handle, symbol.replace("gemm", "gemv"))
        if address and vector:
            return Gemm(address, vector, wide, symbol)
    return None


def _works(gemm: Gemm, dtype: str) -> bool:
    """A trial: 3x4 times the transpose of 2x4, into a matrix of NaN."""
    integer: Any = ctypes.c_int64 if gemm.wide else ctypes.c_int32
    letters: dict[str, Any] = {"e": ctypes.c_int, "i": integer, "s": _SCALAR[dtype], "p": ctypes.c_void_p}

    def function(address: int, kinds: str) -> Any:
        return ctypes.CFUNCTYPE(None, *(letters[kind] for kind in kinds))(address)

    x, y = (np.arange(n * 4, dtype=dtype).reshape(n, 4) - 5 for n in (3, 2))
    left, right = x.ctypes.data, y.ctypes.data
    out, vector = np.full((3, 2), np.nan, dtype), np.zeros(3, dtype)
    times_matrix, times_vector = function(gemm.address, "eeeiiispipispi"), function(gemm.vector_address, "eeiispipispi")
    times_matrix(ROW_MAJOR, NO_TRANS, TRANS, 3, 2, 4, 1.0, left, 4, right, 4, 0.0, out.ctypes.data, 2)
    times_vector(ROW_MAJOR, NO_TRANS, 3, 4, 1.0, left, 4, right, 1, 0.0, vector.ctypes.data, 1)
    return bool((out == x @ y.T).all() and (vector == x @ y[0]).all())


def gemm(dtype: str) -> Gemm | None:
    """The product function for a dtype; None where `numpy.matmul` serves."""
    if dtype not in _PREFIX:
        return None
    found = info()
    return found.gemms[dtype] if found is not None else None


def set_up(install: Callable[[int, int], None]) -> bool:
    """Hand the functions that read and set the number of BLAS threads to native code; False where there are none."""
    found = info()
    if found is None or found.thread_functions is None:
        return False
    install(*found.thread_functions)
    return True


def blocks(m: int, k: int, n: int) -> tuple[int, int]:
    """Rows and columns of the blocks into which a product is cut: halves of halves, by its shape alone."""
    rows, columns = m, n
    while True:
        count = -(-m // rows) * -(-n // columns) if rows and columns else 1
        size = rows * columns * k
        if size <= _LEAST or count >= _MANY or (count >= _FEW and size <= _ENOUGH) or max(rows, columns) < _SIDE:
            return rows, columns
        if rows >= columns:
            rows = _half(rows, 32)
        else:
            columns = _half(columns, 64)


def vector_block(length: int, k: int) -> int:
    """The same for a product with a vector: entries of the result per block."""
    block = length
    while block * k > _LEAST_VECTOR and block >= _SIDE and -(-length // block) < _MANY_VECTOR:
        block = _half(block, 32)
    return block


def _half(length: int, multiple: int) -> int:
    return -(-length // (2 * multiple)) * multiple
