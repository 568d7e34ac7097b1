"""A builder with the idioms of native code that is not a kernel: tables of words, atomics, calls through pointers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir


class Callee:
    """A pointer to call: opaque pointers carry no function type, which llvmlite's builder wants to see."""

    def __init__(self, pointer: Any, function_type: Any):
        self.type, self.function_type, self.get_reference = pointer.type, function_type, pointer.get_reference


class Emitter:
    """A builder with the few idioms of this file. Pointers are opaque; tables are arrays of 64-bit words."""

    def __init__(self, module: ir.Module, name: str, result: str, parameters: str, *, internal: bool = False):
        self.module = module
        self.i8, self.i32, self.i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
        self.ptr = ir.PointerType()
        self.types = {"p": self.ptr, "i": self.i32, "l": self.i64, "v": ir.VoidType()}
        self.function = ir.Function(module, self.type(result, parameters), name)
        self.function.attributes.add("nounwind")
        if internal:
            self.function.linkage = "internal"
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

    def type(self, result: str, parameters: str, *, var_arg: bool = False) -> Any:
        return ir.FunctionType(self.types[result], [self.types[p] for p in parameters], var_arg=var_arg)

    def const(self, value: int) -> Any:
        return self.i64(value)

    def at(self, base: Any, word: Any) -> Any:
        """The address of a word of a table."""
        word = self.i64(word) if isinstance(word, int) else word
        return self.b.gep(base, [word], inbounds=True, source_etype=self.i64)

    def bytes_at(self, base: Any, offset: Any) -> Any:
        offset = self.i64(offset) if isinstance(offset, int) else offset
        return self.b.gep(base, [offset], inbounds=True, source_etype=self.i8)

    def word(self, base: Any, word: Any) -> Any:
        return self.b.load(self.at(base, word), typ=self.i64)

    def pointer(self, base: Any, word: Any) -> Any:
        return self.b.load(self.at(base, word), typ=self.ptr)

    def atomic(self, address: Any, ordering: str = "seq_cst") -> Any:
        return self.b.load_atomic(address, ordering, 8, typ=self.i64)

    def set_atomic(self, value: Any, address: Any, ordering: str = "seq_cst") -> None:
        value = self.i64(value) if isinstance(value, int) else value
        self.b.atomic_rmw("xchg", address, value, ordering)  # the builder's atomic store wants a typed pointer

    def add_atomic(self, address: Any, value: int) -> Any:
        return self.b.atomic_rmw("add", address, self.i64(value), "seq_cst")

    def call(self, signature: str, function: Any, *args: Any, var_arg: bool = False) -> Any:
        """Call through a pointer; `signature` is the result's letter, then the parameters'."""
        kind = self.type(signature[0], signature[1:], var_arg=var_arg)
        return self.ir_call(kind, function, args)

    def ir_call(self, kind: Any, function: Any, args: Any) -> Any:
        return self.b.call(Callee(function, kind), list(args))

    def loop(self, count: Any, body: Any) -> None:
        """`for i in range(count): body(i)`; the body may leave through a branch of its own."""
        b, start = self.b, self.b.block
        head, inside, after = (b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(self.i64)
        i.add_incoming(self.i64(0), start)
        b.cbranch(b.icmp_signed("<", i, count), inside, after)
        b.position_at_end(inside)
        body(i)
        i.add_incoming(b.add(i, self.i64(1)), b.block)
        b.branch(head)
        b.position_at_end(after)

    def pause(self) -> None:
        """Tell the processor that this is a spin loop."""
        machine = self.module.triple.split("-")[0].lower()
        if machine in ("x86_64", "amd64"):
            self.b.call(self.intrinsic("llvm.x86.sse2.pause", "v"), [])
        elif machine in ("aarch64", "arm64"):
            self.b.call(self.intrinsic("llvm.aarch64.hint", "vi"), [self.i32(1)])

    def intrinsic(self, name: str, signature: str) -> Any:
        declared = self.module.globals.get(name)
        return declared or ir.Function(self.module, self.type(signature[0], signature[1:]), name)

    def text(self, content: str) -> Any:
        data = bytearray(content.encode() + b"\0")
        kind = ir.ArrayType(self.i8, len(data))
        number = len(self.module.globals)
        constant = ir.GlobalVariable(self.module, kind, f"text.{self.function.name}.{number}")
        constant.linkage, constant.global_constant = "private", True
        constant.initializer = ir.Constant(kind, data)
        return constant
