"""Where things lie in the two tables that native code reads: the plan of a launch and the machine table.

The plan of a launch is an int64 array: a header (words `PLAN_*`), then the slots, the table of outputs, their dims, the
command table, the arguments of the commands, and the tables of state (`kernels.state`): its cells and the objects that
receive outputs.

Slots are data pointers: inputs, outputs, the arena, constants. Behind them lie the objects that a launch with state
holds while it runs: one word for each cell, each output that is left in an object, each object that receives something.

The machine table holds the entry points and objects of the process. Addresses are in these tables and never in code, so
that code can be cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Words of a plan.
PLAN_MACHINE, PLAN_ARGUMENTS, PLAN_OUTPUTS, PLAN_COMMANDS, PLAN_SLOTS, PLAN_ARENA_BYTES, PLAN_BUSY, PLAN_FLAGS = range(
    8
)
PLAN_SLOT_TABLE, PLAN_OUTPUT_TABLE, PLAN_COMMAND_TABLE, PLAN_CELL_TABLE, PLAN_LEFT_TABLE = range(8, 13)  # addresses
PLAN_FIRST, PLAN_CELLS, PLAN_LEFT, PLAN_RETURNED = range(13, 17)  # of the state; PLAN_SLOTS counts the objects too
PLAN_WRAPPER, PLAN_WRAPPER_VALUE, PLAN_WRAPPER_LAYOUT, PLAN_WHOLE = range(17, 21)  # types, and offsets of slots
PLAN_HEADER = 22

RELEASE_GIL, USES_BLAS, WRITES_CELLS = 1, 2, 4  # flags

OUTPUT_DTYPE, OUTPUT_RANK, OUTPUT_DIMS = range(3)  # a row of the output table
OUTPUT_WORDS = 3

COMMAND_FUNCTION, COMMAND_ARGS, COMMAND_UNITS, COMMAND_PIECES, COMMAND_STEP = range(5)  # a row of the command table
COMMAND_WORDS = 5

CELL_SLOT, CELL_BYTES, CELL_USE = range(3)  # a row of the table of cells; the slot is an address
CELL_WORDS = 3
READ, WRITTEN, WRITTEN_AT_THE_END = range(3)  # uses; the last: when nothing can fail any more

LEFT_SLOT, LEFT_AT_THE_END = range(2)  # a row of the table of receivers
LEFT_WORDS = 2

# The machine table, in order.
MACHINE = (
    "ndarray PyArray_Empty Py_IncRef Py_DecRef PyTuple_New PyTuple_SetItem PyLong_FromLong None PyErr_Format TypeError "
    "PyErr_NoMemory PyEval_SaveThread PyEval_RestoreThread PyInterpreterState_Get PyInterpreterState_ThreadHead "
    "PyThreadState_Next malloc free memcpy pool blas_get_threads blas_set_threads blas_lock blas_depth blas_saved"
).split()
WORD = {name: word for word, name in enumerate(MACHINE)}

ARENA_ALIGNMENT = 64  # bytes
REFERENCES, TYPE = 0, 8  # offsets in PyObject: the count of references (its low 32 bits everywhere), ob_type
DATA, RANK, DIMS, DTYPE, FLAGS = 16, 24, 32, 56, 64  # offsets in PyArrayObject
OWNS_DATA = 0x4  # NPY_ARRAY_OWNDATA
MEMBER, MEMBER_OFFSET = 40, 16  # the PyMemberDef of a slot's descriptor, and the slot's offset there
PYARRAY_EMPTY = 184  # slot of NumPy's C API table


class LaunchPlan(np.ndarray[Any, Any]):
    """An int64 array that keeps alive what its words point to."""

    keep: tuple[Any, ...] = ()
