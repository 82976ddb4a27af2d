"""What the policy says now: detaching, slicing, and padding that must not reach a gradient."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import MissingColumn
from ascent.core.evaluation import Evaluation


def test_columns_and_probes_are_read_by_name() -> None:
    evaluation = Evaluation(log_prob=torch.zeros(2, 3), probes={"kl_old": torch.ones(2, 3)})
    assert list(evaluation) == ["log_prob", "kl_old"]
    assert bool(evaluation.column("kl_old").all()) and "entropy" not in evaluation
    with pytest.raises(MissingColumn, match=r"needs column 'entropy'.*present: log_prob, kl_old"):
        _ = evaluation.entropy


def test_detach_and_rows() -> None:
    leaf = torch.zeros(2, 3, requires_grad=True)
    evaluation = Evaluation(log_prob=leaf, probes={"kl": leaf + 1})
    assert not evaluation.detach().log_prob.requires_grad and not evaluation.detach().probes["kl"].requires_grad
    part = evaluation.rows(torch.tensor([1]))
    assert part.log_prob.shape == (1, 3) and part.probes["kl"].shape == (1, 3) and part.log_prob.requires_grad


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_cleaned_padding_has_exactly_zero_gradient(poison: float) -> None:
    mask = torch.tensor([[True, False], [True, True]])
    leaf = torch.tensor([[1.0, poison], [2.0, 3.0]], requires_grad=True)
    wide = torch.ones(2, 2, 4)
    wide[0, 1] = poison
    clean = Evaluation(log_prob=leaf, outputs=wide).cleaned(mask)
    assert clean.log_prob.tolist() == [[1.0, 0.0], [2.0, 3.0]] and not clean.outputs[0, 1].any()
    (clean.log_prob.exp() * clean.log_prob).sum().backward()
    assert leaf.grad is not None and leaf.grad[0, 1] == 0 and bool(leaf.grad.isfinite().all())


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be \[N, T, ...\] = \[2, 2\]; got \[2, 3\]"):
        Evaluation(log_prob=torch.zeros(2, 3)).cleaned(torch.tensor([[True, False], [True, True]]))
