"""Data: datasets, batches in a fixed order, and the digits that the built-in workload learns."""

from dualgraph.data.dataset import Dataset, TensorDataset
from dualgraph.data.digits import Digits, digits_split, load_digits
from dualgraph.data.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "Digits", "TensorDataset", "digits_split", "load_digits"]
