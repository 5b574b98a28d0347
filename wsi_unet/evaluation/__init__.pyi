from .report import Evaluation as Evaluation
from .run import evaluate as evaluate

__all__ = [
    "Evaluation",
    "evaluate",
]
