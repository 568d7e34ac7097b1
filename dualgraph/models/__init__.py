"""The models of the built-in workloads, each written once, as user code would be."""

from dualgraph.models.affine import Affine
from dualgraph.models.mlp import MLP

__all__ = ["MLP", "Affine"]
