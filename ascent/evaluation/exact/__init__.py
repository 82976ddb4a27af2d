"""The exact laboratory: problems whose every trajectory can be listed, so that an estimator's bias is a number."""

from ascent.evaluation.exact.policy import TabularPolicy, tabular
from ascent.evaluation.exact.problems import bandit, decision_process, sequence
from ascent.evaluation.exact.statistics import GradientStatistics, gradient_statistics
from ascent.evaluation.exact.tree import Tree, gradient

__all__ = [
    "GradientStatistics",
    "TabularPolicy",
    "Tree",
    "bandit",
    "decision_process",
    "gradient",
    "gradient_statistics",
    "sequence",
    "tabular",
]
