"""Ascent: every policy gradient on one small composable core."""

from ascent.api import compare, resume, train
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.registry import method
from ascent.core.term import Term

__version__ = "0.1.0"
__all__ = ["Decisions", "Evaluation", "Method", "Term", "__version__", "compare", "method", "resume", "train"]
