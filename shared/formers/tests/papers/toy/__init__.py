"""A paper for the workbench's tests."""

from toy.model import VARIANTS, Toy, ToyConfig

__all__ = ["VARIANTS", "Toy", "ToyConfig"]
