"""Training: a model and images -> a trained model and its history."""

from robustvae.training.fitting import fit, replay, warnings, write_history
from robustvae.training.schedule import best_epoch

__all__ = ["best_epoch", "fit", "replay", "warnings", "write_history"]
