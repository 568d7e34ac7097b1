"""Views: how elements lie in a buffer. What kernels are given, and all that they know of memory."""

from __future__ import annotations

from dataclasses import dataclass

from dualgraph.spec import Shape, Spec, contiguous_strides


@dataclass(frozen=True, slots=True)
class View:
    """A strided window on a buffer. `offset` and `strides` count elements; a stride of 0 broadcasts."""

    buffer: int
    shape: Shape
    strides: Shape
    offset: int
    dtype: str

    @property
    def spec(self) -> Spec:
        return Spec(self.shape, self.dtype)

    @property
    def contiguous(self) -> bool:
        return all(
            n == 1 or s == c for n, s, c in zip(self.shape, self.strides, contiguous_strides(self.shape), strict=True)
        )

    @property
    def row_major(self) -> bool:
        """Is each matrix of the last two axes contiguous?"""
        rows, columns = self.shape[-2:]
        down, across = self.strides[-2:]
        return 0 in self.shape or ((columns == 1 or across == 1) and (rows == 1 or down == columns))

    @property
    def transposed(self) -> View:
        """The last two axes exchanged."""
        (*batch, m, n), (*strides, down, across) = self.shape, self.strides
        return self.with_layout((*batch, n, m), (*strides, across, down))

    def with_layout(self, shape: Shape, strides: Shape, offset: int | None = None) -> View:
        return View(self.buffer, shape, strides, self.offset if offset is None else offset, self.dtype)

    def broadcast_to(self, shape: Shape) -> View:
        """The same elements read over a larger domain: stride 0 along new axes and axes of length 1."""
        missing = len(shape) - len(self.shape)
        strides = (0,) * missing + tuple(
            0 if have == 1 and want != 1 else stride
            for have, want, stride in zip(self.shape, shape[missing:], self.strides, strict=True)
        )
        return self.with_layout(shape, strides)
