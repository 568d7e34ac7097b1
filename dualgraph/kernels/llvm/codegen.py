"""`emit`: the code of a variant. One row per variant; with this module all emitters and llvmlite are imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dualgraph.errors import KernelError
from dualgraph.kernels.llvm.command import Variant
from dualgraph.kernels.llvm.indexing import code as indexing
from dualgraph.kernels.llvm.indexing.selection import Check, Indexing
from dualgraph.kernels.llvm.loops import columns, flat, rows
from dualgraph.kernels.llvm.loops.variants import Columns, Flat, Rows
from dualgraph.kernels.llvm.products import code as products
from dualgraph.kernels.llvm.products.selection import Gemm, Gemv, Zero
from dualgraph.kernels.llvm.runtime import launch, sharing
from dualgraph.kernels.llvm.runtime.variants import Launch, Worker
from dualgraph.kernels.llvm.sorting import code as sorting
from dualgraph.kernels.llvm.sorting.selection import Order

EMIT: dict[type[Variant], Callable[[Any, ir.Module, str], None]] = {
    Flat: flat.emit,
    Rows: rows.emit,
    Columns: columns.emit,
    Indexing: indexing.emit,
    Check: indexing.emit_check,
    Gemm: products.emit_gemm,
    Gemv: products.emit_gemv,
    Zero: products.emit_zero,
    Order: sorting.emit,
    Launch: launch.emit,
    Worker: sharing.emit_worker,
}


def emit(variant: Variant, module: ir.Module, name: str) -> None:
    """Define the function `name` in a module."""
    write = EMIT.get(type(variant))
    if write is None:
        known = ", ".join(kind.__name__ for kind in EMIT)
        raise KernelError(
            f"got a variant of kind {type(variant).__name__}; there is an emitter for {known}; add a row to `codegen.EMIT`"
        )
    write(variant, module, name)
