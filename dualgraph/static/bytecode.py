"""What a function reads, by its bytecode: names of globals, of closure variables and of attributes.

A trace runs a function once. So what the function read then must still be so when the graph is run in its stead. A name that
is only written to (`calls += 1`, `losses.append(loss)`, `table["a"] = x`) is not read: nothing in the graph depends on it.
"""

from __future__ import annotations

import builtins
import dis
import functools
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from dualgraph.exact import elements, store

# What a load is good for.
READ = "read"
MAYBE = "maybe"  # read if it is there: that it is not matters, too
ASSIGNED = "assigned"  # to what it was and something else: x += 1, self.x += 1
CHANGED = "changed"  # in place, if it is a container of Python's: x[0] = 1, x[0] += 1, x.append(1)
INSIDE = "[]"  # after it, once or more: so is one of its items, if these are containers, too: x[0].append(1)
STORED = "stored"  # x.name = 1: matters where the class does something about it

CONTAINERS = (list, dict, set, deque, bytearray, Counter, OrderedDict, defaultdict)
_VALUES = (int, float, complex, str, bytes, tuple, type(None))  # what x += 1 makes anew
MUTATORS = frozenset("append appendleft extend extendleft insert add update clear".split())
_SUBSCRIPT = ("BINARY_SUBSCR", "BINARY_OP")
_FREE = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM")
_BY_STRING = frozenset("getattr hasattr vars attrgetter methodcaller __dict__ __getattribute__".split())

# What a function asks objects for that it does not name: text, whether they are equal or less, their hash, a copy, their
# class, all of their attributes.
SHOWS, COMPARES, HASHES, COPIES, CLASSES, WHOLE = "shows", "compares", "hashes", "copies", "classes", "whole"
# By which opcodes, and by which attributes of objects and of modules; what names of functions mean is looked up.
_OPCODES = {
    SHOWS: "FORMAT_VALUE FORMAT_SIMPLE FORMAT_WITH_SPEC CONVERT_VALUE",
    HASHES: "BUILD_SET SET_ADD SET_UPDATE BUILD_MAP MAP_ADD DICT_UPDATE",
}
_NAMES = {
    SHOWS: "format format_map __str__ __repr__ __format__",
    COMPARES: "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ sort index count remove heappush heappop heapify heapreplace "
    "heappushpop nlargest nsmallest merge bisect bisect_left bisect_right insort insort_left insort_right",
    HASHES: "__hash__ get pop setdefault add discard remove index count fromkeys "
    "union intersection difference symmetric_difference issubset issuperset isdisjoint",
    COPIES: "deepcopy",
    CLASSES: "deepcopy replace _replace _make __replace__ evolve fromkeys __new__",
    WHOLE: "asdict astuple deepcopy __dict__",
}
_BY_OPCODE = {name: ask for ask, names in _OPCODES.items() for name in names.split()}
_BY_NAME: dict[str, set[str]] = {}
for _ask, _names in _NAMES.items():
    for _name in _names.split():
        _BY_NAME.setdefault(_name, set()).add(_ask)
_PAIR = re.compile(r"(?:LOAD|STORE)_FAST")
_FIELD = re.compile(r"\{([^{}!:]+)")  # of a format string: "{0.name}"
_CONSTANT = ("LOAD_CONST", "LOAD_SMALL_INT", "BUILD_SLICE")
OF_ARRAYS = ("ndim", "dtype", "shape")  # plain values, unless an object of the user's has such an attribute
_OF_CLASS = ("__name__", "__qualname__", "__module__")  # of a class whose objects nobody makes for it
_TELLING = ("IS_OP", "COMPARE_OP", "CONTAINS_OP")
_OF_METHODS = ("LOAD_ATTR", "LOAD_METHOD")
_SUBSCRIPTS = ("BINARY_SUBSCR", "BINARY_OP", "STORE_SUBSCR", "DELETE_SUBSCR")
_ASKING = frozenset((*_BY_OPCODE, "LOAD_CONST", "LOAD_SMALL_INT", *_TELLING, *_SUBSCRIPTS, *_GLOBAL, *_ATTRIBUTE))

# Whose attributes are got by computed names: those of the first argument, of what is held under a name as an attribute,
# a closure variable or a global (before that name), of anything.
OWN, UNDER, FREE, GLOBAL, ANY = "self", ".", "free ", "global ", "*"
_GETTERS = ("attrgetter", "methodcaller")
_COMPUTING = frozenset(("getattr", "hasattr", "__getattribute__", *_GETTERS))
_CALLS = ("PRECALL", "CALL", "CALL_KW")
# Errors that the lack of an attribute is not.
_OTHER_ERRORS = frozenset(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(AttributeError, kind)
) - {"AttributeError"}
_IMPORTING = frozenset("import_module __import__".split())

Uses = dict[str, set[str]]  # what each name is loaded for


class Reads(NamedTuple):
    """Names that a code object and those inside of it load, and what for."""

    globals: Uses
    free: Uses
    attributes: Uses
    modules: Uses  # that are imported inside
    strings: Uses  # that may be names of attributes
    asks: set[str]  # what objects are asked for, see SHOWS to WHOLE
    members: set[tuple[str, str]]  # names, and attributes that are loaded of what they hold
    computed: frozenset[str]  # what has attributes that are got by computed names, see OWN to ANY
    catches: bool  # exceptions that the lack of an attribute may raise, here or in what is called


@functools.lru_cache(maxsize=4096)
def reads(code: CodeType) -> Reads:
    """The names that `code` loads, and the functions, lambdas and comprehensions written inside of it."""
    found = Reads({}, {}, {}, {}, {}, set(), set(), frozenset(), False)
    _collect(code, found)
    if not _BY_STRING.isdisjoint((*found.globals, *found.attributes)):
        for name in found.strings:
            found.attributes.setdefault(name, set()).update((READ, MAYBE))
        found.asks.update((CLASSES,) if "__class__" in found.strings else ())
    if not _IMPORTING.isdisjoint((*found.globals, *found.attributes)):
        for inner in _codes(code):
            found.modules.update({name: {READ} for name in inner.co_consts if isinstance(name, str)})
    if "globals" in found.globals:
        for name in found.strings:
            found.globals.setdefault(name, set()).add(READ)
    if "format" in found.attributes or "format_map" in found.attributes:
        for inner in _codes(code):
            for field in (f for text in inner.co_consts if isinstance(text, str) for f in _FIELD.findall(text)):
                for name in filter(str.isidentifier, field.replace("[", ".").split(".")[1:]):
                    found.attributes.setdefault(name, set()).update((READ, MAYBE))
    if not _BY_STRING.isdisjoint((*found.globals, *found.attributes)):
        found.asks.update(*(_BY_NAME.get(name, ()) for name in found.strings))
    for inner in _codes(code):
        _note_asks(_instructions(inner), found)
    computed = frozenset[str]().union(*(_computed(inner, code) for inner in _codes(code)))
    catches = "suppress" in found.globals or "suppress" in found.attributes or any(map(_catches, _codes(code)))
    return found._replace(computed=computed, catches=catches)


def _catches(code: CodeType) -> bool:
    """Whether a code object may go on after an attribute was not there."""
    instructions = _instructions(code)
    return any(_handles(instructions, number) for number in range(len(instructions)))


def _handles(instructions: Sequence[dis.Instruction], number: int) -> bool:
    """Whether an instruction begins an `except` without a kind, or chooses a kind that may be an AttributeError."""
    i = instructions[number]
    if i.opname == "CHECK_EXC_MATCH":
        made = instructions[number - 1]
        many = made.arg or 0 if made.opname == "BUILD_TUPLE" else 0
        kinds = instructions[number - 1 - many : number - 1] if many else [made]
        return not all(j.opname in _GLOBAL and j.argval in _OTHER_ERRORS for j in kinds)
    return i.opname == "PUSH_EXC_INFO" and instructions[number + 1].opname == "POP_TOP"


def _note_asks(instructions: Sequence[dis.Instruction], found: Reads) -> None:
    """Note what operators, methods and built-in functions ask objects for."""
    plain: set[int] = set()  # the offsets of operators with a constant or a length, which no object's method sees
    for number, i in enumerate(instructions):
        if i.opname not in _ASKING:
            continue
        after = instructions[number + 1 : number + 40]
        made = _plain_at(instructions, number)
        if made:
            rest = instructions[made : made + 40]
            plain.update(j.offset for j in (*rest[:1], *_then(rest, (*_TELLING, "BINARY_OP"))[:1]))
        asks = _asks(i, instructions[number - 1].opname if number else "", after, i.offset in plain)
        found.asks.update(asks if SHOWS not in asks or not _is_raised(after) else asks - {SHOWS})


def _asks(i: dis.Instruction, before: str, after: Sequence[dis.Instruction], is_plain: bool) -> set[str]:
    if i.opname in _BY_OPCODE:
        return {_BY_OPCODE[i.opname]}
    if i.opname in ("COMPARE_OP", "CONTAINS_OP"):
        return set() if is_plain else {COMPARES, HASHES}
    if _is_subscript(i) or i.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
        return set() if before in _CONSTANT else {HASHES}
    if i.opname == "BINARY_OP" and i.argrepr in ("%", "%="):
        return set() if is_plain else {SHOWS}  # of what may be a string
    if i.opname in _GLOBAL and i.argval == "type":
        end = _called(after)[1]
        return set() if end and _only_told(after[end:]) else {CLASSES}
    if i.opname in _ATTRIBUTE:
        told = i.argval == "__class__" and _only_told(after)
        return {CLASSES} if i.argval == "__class__" and not told else _BY_NAME.get(i.argval, set())
    return set()


def _plain_at(instructions: Sequence[dis.Instruction], number: int) -> int:
    """After which instruction there is a plain value on the stack, if this one begins to make it; else 0."""
    i, after = instructions[number], instructions[number + 1 : number + 12]
    if i.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
        return 0 if isinstance(i.argval, str) and _formats(after) else number + 1
    if i.opname in _OF_METHODS and i.argval in OF_ARRAYS[:2]:
        return number + 1
    if i.opname in _OF_METHODS and i.argval == OF_ARRAYS[2] and len(after) > 1:
        return number + 3 if after[0].opname in _CONSTANT and _is_subscript(after[1]) else 0
    if i.opname in _GLOBAL and i.argval == "len":
        end = _called(after)[1]
        return end and number + 1 + end
    return 0


def _formats(after: Sequence[dis.Instruction]) -> bool:
    """Whether a string is the left operand of an operator."""
    operator = _then(after, "BINARY_OP")
    return bool(operator) and operator[0].argrepr == "%"


def _is_raised(after: Sequence[dis.Instruction]) -> bool:
    """Whether a text goes into an exception and nowhere else."""
    for i in after:
        if i.opname == "RAISE_VARARGS":
            return True
        if i.opname.startswith(("STORE_", "RETURN_", "YIELD_", "POP_TOP")) or "JUMP" in i.opname:
            return False
    return False


def _only_told(after: Sequence[dis.Instruction]) -> bool:
    """Whether a class is only asked for its name, or which it is."""
    first = after[0] if after else None
    if first is None:
        return False
    return (
        first.opname in _TELLING
        or (first.opname in _OF_METHODS and first.argval in _OF_CLASS)
        or bool(_then(after, _TELLING))
    )


def _codes(code: CodeType) -> list[CodeType]:
    """A code object, and those written inside of it."""
    return [code, *(c for inner in code.co_consts if isinstance(inner, CodeType) for c in _codes(inner))]


def _computed(code: CodeType, function: CodeType) -> set[str]:
    """Whose attributes a code object, inside of that of a function, gets by names that it computes."""
    found: set[str] = set()
    instructions = _instructions(code)
    for number, instruction in enumerate(instructions):
        if instruction.opname not in (*_GLOBAL, *_ATTRIBUTE) or instruction.argval not in _COMPUTING:
            continue
        made, _ = _called(instructions[number + 1 :])
        names = _names_in(instruction.argval, made)
        if not (names and all(map(_is_text, names))):
            of_first = instruction.argval not in _GETTERS and len(made) > 1
            found.add(_holder(made[0], code, function) if of_first else ANY)
    return found


def _names_in(getter: str, made: list[list[dis.Instruction]]) -> list[list[dis.Instruction]]:
    """Those of the arguments of a function that gets attributes that name them."""
    if getter == "attrgetter":
        return made
    return made[:1] if getter == "methodcaller" or (getter == "__getattribute__" and len(made) == 1) else made[1:2]


def _is_text(made: list[dis.Instruction]) -> bool:
    return len(made) == 1 and made[0].opname == "LOAD_CONST" and isinstance(made[0].argval, str)


def _holder(expression: Sequence[dis.Instruction], code: CodeType, function: CodeType) -> str:
    """What an expression means, as far as one can see: a name, or attributes of it."""
    load, attributes = expression[0], expression[1:]
    name = load.argval
    if any(i.opname not in _OF_METHODS for i in attributes):
        return ANY
    if load.opname in _GLOBAL:
        return GLOBAL + ".".join([name, *(i.argval for i in attributes)])
    if not load.opname.startswith("LOAD_FAST") and load.opname not in _FREE:
        return ANY
    if attributes:
        return UNDER + str(attributes[-1].argval)
    local = load.opname.startswith("LOAD_FAST") and code is function
    if (local or load.opname in _FREE) and name in function.co_varnames[:1]:
        return ANY if _is_rebound(name, function) else OWN
    return FREE + name if load.opname in _FREE and name in function.co_freevars else ANY


def _is_rebound(name: str, function: CodeType) -> bool:
    """Whether a function, or one inside of it, stores to a variable of its own."""
    return any("STORE_" in i.opname and i.argval == name for code in _codes(function) for i in _instructions(code))


def _called(after: Sequence[dis.Instruction]) -> tuple[list[list[dis.Instruction]], int]:
    """The instructions that each argument is made by, in a call of what was loaded before these, and how many there are
    up to its end; none, where one cannot see it."""
    made: list[list[dis.Instruction]] = []
    depth = 0
    for at, i in enumerate(after):
        effect = -1 if i.opname == "JUMP_FORWARD" else dis.stack_effect(i.opcode, i.arg, jump=False)
        depth += effect  # behind a jump over the other of two expressions there is one of them
        if i.opname in _CALLS and depth == (0 if i.opname == "PRECALL" else -1):
            return made[: i.arg], at + 1 + (i.opname == "PRECALL")
        if depth < 1 or i.opname in ("SWAP", "FOR_ITER", "SEND") or "BACKWARD" in i.opname:
            break
        made += [[] for _ in range(depth - len(made))]
        if effect >= 0 or not i.opname.startswith(("POP_", "STORE_", "JUMP_")):
            made[depth - 1].append(i)
    return [], 0


def _collect(code: CodeType, found: Reads) -> None:
    """Note what is loaded."""
    instructions = _instructions(code)
    for number, instruction in enumerate(instructions):
        for names, loads in ((found.globals, _GLOBAL), (found.free, _FREE), (found.attributes, _ATTRIBUTE)):
            if instruction.opname in loads and not _is_of_super(instructions, number):
                names.setdefault(instruction.argval, set()).add(_use(instructions, number))
        if instruction.opname in _OF_METHODS and number and instructions[number - 1].opname in (*_GLOBAL, *_FREE):
            found.members.add((instructions[number - 1].argval, instruction.argval))
        if instruction.opname == "IMPORT_NAME":  # how many packages up, what of it, from where
            level, wanted = (i.argval for i in instructions[number - 2 : number])
            parts = instruction.argval.split(".")
            parents = [] if level else [".".join(parts[:n]) for n in range(1, len(parts))]
            for module in (*parents, *(instruction.argval + part for part in ("", *(f".{n}" for n in wanted or ())))):
                found.modules["." * level + module.lstrip("." if level else "")] = {READ}
        if instruction.opname in ("STORE_ATTR", "DELETE_ATTR"):
            found.attributes.setdefault(instruction.argval, set()).add(STORED)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, found)
        for name in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(name, str):
                found.strings.update({part: {READ} for part in name.split(".") if part.isidentifier()})


def _is_of_super(instructions: Sequence[dis.Instruction], number: int) -> bool:
    """Whether a load is of the class that `super()` begins at, which nobody else sees."""
    before = instructions[number - 1]
    return instructions[number].argval == "__class__" and before.opname in _GLOBAL and before.argval == "super"


def is_read(uses: set[str], value: Any) -> bool:
    """Whether a name that is loaded for these uses, and holds this value, is read."""
    if READ in uses:
        return True
    depth = depth_of(uses)
    if depth is not None and not _nests(value, depth):
        return True
    return ASSIGNED in uses and not (type(value) in CONTAINERS or issubclass(type(value), _VALUES))


def depth_of(uses: set[str]) -> int | None:
    """How deep in what a name holds something is changed."""
    return max([use.count(INSIDE) for use in uses if use.startswith(CHANGED)], default=None)


def _nests(value: Any, depth: int) -> bool:
    """Whether a value is a container of Python's, or an array, and so are those in it, to a depth."""
    if type(value) is np.ndarray:
        return depth == 0 and value.base is None and not value.dtype.hasobject
    inside = items(value) if type(value) in CONTAINERS and depth else ()
    return type(value) in CONTAINERS and all(type(v) in (*_VALUES, bool) or _nests(v, depth - 1) for v in inside)


def items(container: Any) -> list[Any]:
    """What is in a container, and what it makes by itself."""
    found = list(store(container).values(container) if isinstance(container, dict) else elements(container))
    if isinstance(container, defaultdict) and container.default_factory not in (None, *CONTAINERS):
        found.append(container.default_factory)
    return found


@functools.lru_cache(maxsize=1024)
def _instructions(code: CodeType) -> list[dis.Instruction]:
    found = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG", "NOP")]
    return [simple for i in found for simple in _simple(i)]


def _simple(i: dis.Instruction) -> list[dis.Instruction]:
    """An instruction, or the two that it stands for."""
    kinds = _PAIR.findall(i.opname) if isinstance(i.argval, tuple) and i.opname.count("_FAST") > 1 else []
    return [
        i._replace(opname=kind, opcode=dis.opmap[kind], argval=name) for kind, name in zip(kinds, i.argval, strict=True)
    ] if kinds else [i]  # fmt: skip


@functools.lru_cache(maxsize=4096)
def use(code: CodeType, offset: int) -> str:
    """What the load at `offset` is good for."""
    instructions = _instructions(code)
    return next((_use(instructions, n) for n, i in enumerate(instructions) if i.offset == offset), READ)


def _use(instructions: Sequence[dis.Instruction], number: int, by_name: bool = True) -> str:
    """What a load is good for; `by_name`: follow the local variable that it is stored to."""
    at, depth = number, 0
    while True:  # into the items of what is loaded
        use = _change(instructions, at, by_name)
        if use:
            return use + INSIDE * depth
        after = instructions[at + 1 : at + 80]
        rest = _then(after, _SUBSCRIPT)
        if not rest or not _is_subscript(rest[0]):
            return ASSIGNED if _is_assigned(instructions, number) else READ
        at, depth = at + 1 + len(after) - len(rest), depth + 1


def _change(instructions: Sequence[dis.Instruction], at: int, by_name: bool) -> str:
    """How a container is changed, which the instruction at this number has put on the stack; nothing if it is not."""
    after = instructions[at + 1 : at + 80]
    if not after:
        return ""
    if after[0].opname in _OF_METHODS and after[0].argval in MUTATORS:
        return CHANGED  # x.append(…)
    if after[0].opname in _OF_METHODS and after[0].argval == "setdefault":
        return _of_default(after)
    if after[0].opname == "STORE_FAST" and by_name:
        return _of_name(instructions, after[0].argval)
    return CHANGED if "STORE_SUBSCR" in [i.opname for i in after] and _is_stored_to(instructions, at, after) else ""


def _of_name(instructions: Sequence[dis.Instruction], name: str) -> str:
    """How all that a local variable holds is changed, if nothing else is done with it."""
    loads = [n for n, i in enumerate(instructions) if i.argval == name and i.opname.startswith("LOAD_FAST")]
    uses = [_use(instructions, n, by_name=False) for n in loads]
    return max(uses, key=len) if uses and all(use.startswith(CHANGED) for use in uses) else ""


def _is_assigned(instructions: Sequence[dis.Instruction], number: int) -> bool:
    """Whether a load is that of `x += …` or `x = x + …`, `a.b.x += …` or `a.b.x = a.b.x + …`."""
    load, store = instructions[number], _operated(instructions, number)
    if not store:
        return False
    if store[0].opname in ("STORE_GLOBAL", "STORE_DEREF") and store[0].argval == load.argval:
        return True
    owner = instructions[_start(instructions, number) : number]
    begin = 1 if store[0].opname == "SWAP" else len(owner) if _are_same(store, owner) else len(store)
    ends = [(i.opname, i.argval) for i in store[begin : begin + 1]]
    return load.opname in _ATTRIBUTE and ends == [("STORE_ATTR", load.argval)]


def _are_same(instructions: Sequence[dis.Instruction], place: Sequence[dis.Instruction]) -> bool:
    """Whether instructions begin with the same expression without calls."""
    same = [(i.opname, i.argval) for i in instructions[: len(place)]] == [(i.opname, i.argval) for i in place]
    return same and bool(place) and not any(i.opname in _CALLS for i in place)


def _start(instructions: Sequence[dis.Instruction], number: int) -> int:
    """Where the expression begins that the instruction at this number ends."""
    above = 0
    for at in range(number, max(number - 40, -1), -1):
        above += dis.stack_effect(instructions[at].opcode, instructions[at].arg, jump=False)
        if above == 1:
            return at
    return number


def _is_stored_to(instructions: Sequence[dis.Instruction], number: int, after: Sequence[dis.Instruction]) -> bool:
    if _then(after, "STORE_SUBSCR"):
        return True  # x[0] = …
    item = _then(after, "COPY", "COPY", _SUBSCRIPT)
    if item and [i.opname for i in _operated(item, 2)][:3] == ["SWAP", "SWAP", "STORE_SUBSCR"]:
        return True  # x[0] += …
    return _is_set_again(instructions, number)  # x[0] = x[0] + …


def _operated(instructions: Sequence[dis.Instruction], number: int) -> Sequence[dis.Instruction]:
    """What comes after the operator whose left operand is what is loaded; nothing if it is used in another way."""
    above = 0  # values on the stack above it
    for at, i in enumerate(instructions[number + 1 : number + 40], number + 1):
        if i.opname == "BINARY_OP" and above == 1:
            return instructions[at + 1 : at + 20] if i.argrepr not in ("", "[]") else ()
        pushes = i.opname.startswith("LOAD_") and i.opname not in _ATTRIBUTE
        if (
            "JUMP" in i.opname
            or i.opname in ("COPY", "SWAP")
            or (above == 0 and not (pushes or i.opname == "PUSH_NULL"))
        ):
            return ()
        above += dis.stack_effect(i.opcode, i.arg, jump=False)
        if above < 1:
            return ()
    return ()


def _then(after: Sequence[dis.Instruction], *pattern: str | tuple[str, ...]) -> Sequence[dis.Instruction]:
    """What comes after the expression that begins here, where it is of this pattern."""
    above = 0
    for at, i in enumerate(after[:40]):
        if "JUMP" in i.opname or i.opname in ("COPY", "SWAP"):
            return ()
        above += dis.stack_effect(i.opcode, i.arg, jump=False)
        if above < 1:
            return ()
        follows = after[at + 1 : at + 1 + len(pattern)] if above == 1 else ()
        if follows and _match([j.opname for j in follows], *pattern):
            return after[at + 1 :]
    return ()


def _of_default(after: Sequence[dis.Instruction]) -> str:
    """What `x.setdefault(…)` is good for."""
    above = 0
    for at, i in enumerate(after[:40]):
        above += dis.stack_effect(i.opcode, i.arg, jump=False)
        if above < 1 or "JUMP" in i.opname or i.opname in ("COPY", "SWAP"):
            then = after[at + 1] if above == 0 and i.opname.startswith("CALL") else i
            changes = then.opname in _OF_METHODS and then.argval in MUTATORS and then is not i
            return CHANGED if then.opname == "POP_TOP" else CHANGED + INSIDE if changes else ""
    return ""


def _is_set_again(instructions: Sequence[dis.Instruction], number: int) -> bool:
    """Whether a load is that of `x[k] = x[k] + …` or of `x[k] = x.get(k, 0) + …`."""
    after = instructions[number + 1 : number + 40]
    if after and after[0].opname in _OF_METHODS and after[0].argval == "get":
        end = next((n for n, i in enumerate(after) if i.opname == "CALL"), 0)
        key = [i for i in after[1:end] if i.opname != "PRECALL"][:-1]  # all but the default, a constant
        if len(key) + 2 > end or after[len(key) + 1].opname not in _CONSTANT or after[end].argval != 2:
            return False
    else:
        rest = _then(after, _SUBSCRIPT)
        end = len(after) - len(rest)
        key = list(after[:end])
        if not rest or not _is_subscript(rest[0]):
            return False
    stored = _operated(instructions, number + 1 + end)
    place = [*instructions[_start(instructions, number) : number + 1], *key]
    return _are_same(stored, place) and [i.opname for i in stored[len(place) : len(place) + 1]] == ["STORE_SUBSCR"]


def _is_subscript(i: dis.Instruction) -> bool:
    return i.opname == "BINARY_SUBSCR" or (i.opname == "BINARY_OP" and i.argrepr == "[]")


def _match(names: Sequence[str], *pattern: str | tuple[str, ...]) -> bool:
    pairs = zip(names, pattern, strict=False)
    return len(names) >= len(pattern) and all(n == p if isinstance(p, str) else n in p for n, p in pairs)
