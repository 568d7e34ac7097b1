"""Where things lie in the two tables that native code reads: the plan of a program and the machine table.

A plan is an int64 array: a header (words `PLAN_*`), then the slots, the table of outputs, their dims, the command table
and the arguments of the commands. The machine table holds the entry points and objects of the process. Addresses are in
these tables and never in code, so that code can be cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Words of a plan.
PLAN_MACHINE, PLAN_ARGUMENTS, PLAN_OUTPUTS, PLAN_COMMANDS, PLAN_SLOTS, PLAN_ARENA_BYTES, PLAN_BUSY, PLAN_FLAGS = range(
    8
)
PLAN_SLOT_TABLE, PLAN_OUTPUT_TABLE, PLAN_COMMAND_TABLE = range(8, 11)  # addresses within the plan
PLAN_HEADER = 12

RELEASE_GIL, USES_BLAS = 1, 2  # flags

OUTPUT_DTYPE, OUTPUT_RANK, OUTPUT_DIMS = range(3)  # a row of the output table
OUTPUT_WORDS = 3

COMMAND_FUNCTION, COMMAND_ARGS, COMMAND_UNITS, COMMAND_PIECES, COMMAND_STEP = range(5)  # a row of the command table
COMMAND_WORDS = 5

# The machine table, in order.
MACHINE = (
    "ndarray PyArray_Empty Py_IncRef Py_DecRef PyTuple_New PyTuple_SetItem PyLong_FromLong None PyErr_Format TypeError "
    "PyErr_NoMemory PyEval_SaveThread PyEval_RestoreThread malloc free pool blas_get_threads blas_set_threads "
    "blas_lock blas_depth blas_saved"
).split()
WORD = {name: word for word, name in enumerate(MACHINE)}

ARENA_ALIGNMENT = 64  # bytes
DATA = 16  # offset of PyArrayObject.data
TYPE = 8  # offset of PyObject.ob_type
PYARRAY_EMPTY = 184  # slot of NumPy's C API table


class Plan(np.ndarray[Any, Any]):
    """An int64 array that keeps alive what its words point to."""

    keep: tuple[Any, ...] = ()
