"""Figures."""

from ._training_history import training_history

__all__ = ["training_history"]
