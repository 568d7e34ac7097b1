"""From kernel variants to addresses of machine code: memory, then the disk cache, then LLVM.

One process-wide ORC JIT. Each variant is one module with one function and one object, so the key of the disk cache is
the variant itself and the warm path builds no IR and imports no emitter. Code is never unloaded: kernels are few and
small, and an address handed out stays valid for the life of the process. Compilation is serial: llvmlite runs one call at
a time, and two threads past its lock were no faster (measured).
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualgraph import config
from dualgraph.errors import ArgumentError, KernelError
from dualgraph.kernels.llvm import cache
from dualgraph.kernels.llvm.command import Variant

SPEED_LEVEL = 2
# The levels of x86-64 and what a processor of each has, as far as LLVM may use it.
_LEVELS = {
    "x86-64": (),
    "x86-64-v2": ("sse4.2", "ssse3", "popcnt"),
    "x86-64-v3": ("avx2", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
_KERNELS = Path(__file__).parents[1]

_addresses: dict[Variant, int] = {}
_lock = threading.RLock()
_libraries = 0  # ORC names its libraries; a name is never used twice


def _reset_after_fork() -> None:
    """Another thread of the parent may have held the locks (ours and llvmlite's) while it forked."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_reset_after_fork
    )


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm  # 40 ms: only when machine code is needed

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def _jit() -> Any:
    config.check_num_threads()
    jit = _llvm().create_lljit_compiler()
    jit._owned = True  # never disposed: native code may still run while the interpreter shuts down
    return jit


@functools.cache
def target() -> tuple[str, str]:
    """Name and features of the processor that code is made for. `DUALGRAPH_CPU` names another one, for tests."""
    chosen, llvm = config.cpu(), _llvm()
    if chosen:
        known = _processors()
        if chosen not in known:  # LLVM would end the process
            raise ArgumentError(
                f"got DUALGRAPH_CPU={chosen!r}; code can be made for {', '.join(known)} on this machine; set one of "
                "these, or unset the variable"
            )
        return chosen, ""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _processors() -> list[str]:
    """The processors whose code this machine can run, by LLVM's names."""
    llvm = _llvm()
    host, has = llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
    if not llvm.get_process_triple().startswith("x86_64"):
        return list(dict.fromkeys((host, "generic")))
    names, lacks = [host], False
    for level, features in _LEVELS.items():
        lacks = lacks or not all(has.get(feature, False) for feature in features)
        if not lacks and level not in names:
            names.append(level)
    return names


@functools.cache
def _target_machine() -> Any:
    llvm = _llvm()
    cpu, features = target()
    triple = llvm.get_process_triple()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=SPEED_LEVEL, reloc="pic", codemodel="small", jit=True
    )


def _sources() -> list[Path]:
    """Where code may come from: the emitters, wherever they lie, and all that they may take constants and rules from."""
    return [_KERNELS.parent / "dtypes.py", _KERNELS.parent / "spec.py", *sorted(_KERNELS.rglob("*.py"))]


@functools.cache
def _environment() -> bytes:
    """What a cached object depends on besides its variant: the emitters' sources, LLVM and the processor."""
    import llvmlite

    digest = hashlib.sha256()
    try:
        for path in _sources():
            digest.update(os.fsencode(path.relative_to(_KERNELS.parent)) + b"\0" + path.read_bytes() + b"\0")
    except OSError:  # installed without sources: nothing tells which emitters made an object, so share none
        digest.update(os.urandom(32))
    facts = (llvmlite.__version__, _llvm().llvm_version_info, _llvm().get_process_triple(), target(), SPEED_LEVEL)
    digest.update(repr(facts).encode())
    return digest.digest()


def key(variant: Variant) -> str:
    """The name of a variant in the disk cache and, shortened, of its function."""
    kind = type(variant)
    text = f"{kind.__module__}.{kind.__qualname__}\0{variant!r}"
    if " at 0x" in text:
        raise KernelError(
            f"got the variant {variant!r}; its repr keys the disk cache and must say what it computes, not where it "
            "lies in memory; build it from numbers, strings and records of these"
        )
    return hashlib.sha256(_environment() + text.encode()).hexdigest()


def _symbol(cache_key: str) -> str:
    return f"k{cache_key[:32]}"


def addresses(variants: Sequence[Variant]) -> list[int]:
    """The entry addresses of `variants`, compiling what neither this process nor the disk cache knows."""
    known = _addresses
    if any(variant not in known for variant in variants):
        with _lock:
            _add(list(dict.fromkeys(variant for variant in variants if variant not in known)))
    return [known[variant] for variant in variants]


def _add(missing: list[Variant]) -> None:
    if not missing:
        return
    symbols, objects = [], []
    for variant in missing:
        cache_key = key(variant)
        code = cache.load(cache_key)
        if code is None:
            code = _object(variant, _symbol(cache_key))
            cache.store(cache_key, code)
        symbols.append(_symbol(cache_key))
        objects.append(code)
    for variant, address in zip(missing, _link(symbols, objects), strict=True):
        _addresses[variant] = address


def _link(symbols: list[str], objects: list[bytes]) -> list[int]:
    global _libraries
    builder = _llvm().JITLibraryBuilder()
    for symbol, code in zip(symbols, objects, strict=True):
        builder.add_object_img(code)
        builder.export_symbol(symbol)
    builder.add_current_process()  # memset and memcpy, which LLVM may call
    _libraries += 1
    tracker = builder.link(_jit(), f"dualgraph.{_libraries}")
    tracker.detach()  # see `_jit`
    return [tracker[symbol] for symbol in symbols]


def _emit(variant: Variant, name: str) -> str:
    from llvmlite import ir

    from dualgraph.kernels.llvm import codegen  # with all emitters: only when code must be written

    module = ir.Module(name=name)
    module.triple = _llvm().get_process_triple()
    codegen.emit(variant, module, name)
    return str(module)


def _optimised(variant: Variant, name: str) -> Any:
    llvm = _llvm()
    text = _emit(variant, name)
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise KernelError(
            f"got IR that LLVM rejects, from {variant!r}: {error}; an emitter must produce valid IR; this is a fault "
            "of dualgraph: report it, and set DUALGRAPH_KERNELS=reference to go on"
        ) from error
    machine = _target_machine()
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=SPEED_LEVEL)
    # Kernels are written in vectors and unrolled where that pays: measured, these add a quarter to the time of
    # compilation and nothing to the speed of kernels.
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    if not variant.straight:
        builder.getModulePassManager().run(module, builder)
    else:  # nothing there for the other passes, which take two thirds of the time
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.run(module, builder)
    return module


def _object(variant: Variant, name: str) -> bytes:
    code: bytes = _target_machine().emit_object(_optimised(variant, name))
    return code


def llvm_ir(variant: Variant, *, optimised: bool = True) -> str:
    """The LLVM IR of a variant, as emitted or as optimised."""
    with _lock:
        name = _symbol(key(variant))
        return str(_optimised(variant, name)) if optimised else _emit(variant, name)


def assembly(variant: Variant) -> str:
    """The machine code of a variant in assembly language."""
    with _lock:
        text: str = _target_machine().emit_assembly(_optimised(variant, _symbol(key(variant))))
        return text


def describe() -> dict[str, str]:
    """For `doctor`: versions and processor."""
    import llvmlite

    cpu, features = target()
    enabled = sorted(f[1:] for f in features.split(",") if f.startswith("+"))
    version = ".".join(map(str, _llvm().llvm_version_info))
    return {"llvmlite": llvmlite.__version__, "llvm": version, "cpu": cpu, "features": " ".join(enabled)}
