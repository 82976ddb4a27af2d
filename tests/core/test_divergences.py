"""Divergences by enumeration of a softmax: the expectations and gradients that the module's table promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.divergences import Divergence, Entropy, estimate
from ascent.core.evaluation import Evaluation

LOGITS = torch.tensor([0.4, -1.0, 0.9, 0.1], dtype=torch.float64)
OTHER = torch.tensor([-0.3, 0.5, 0.2, 0.0], dtype=torch.float64).log_softmax(0)


def expectation(kind: str, logits: Tensor = LOGITS) -> tuple[Tensor, Tensor]:
    """E_pi[estimate] and E_pi[d estimate / d logits] with the actions as given, over all actions."""
    logits = logits.clone().requires_grad_()
    log_prob = logits.log_softmax(0)
    share = log_prob.exp().detach()
    value = (share * estimate(log_prob, OTHER, kind)).sum()
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def exact(forward: bool) -> tuple[Tensor, Tensor]:
    logits = LOGITS.clone().requires_grad_()
    log_prob = logits.log_softmax(0)
    ours, theirs = (OTHER, log_prob) if forward else (log_prob, OTHER)
    value = (ours.exp() * (ours - theirs)).sum()
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative() -> None:
    reverse, _ = exact(forward=False)
    torch.testing.assert_close(expectation("k1")[0], reverse)
    torch.testing.assert_close(expectation("k3")[0], reverse)
    assert (estimate(LOGITS.log_softmax(0), OTHER, "k3") > 0).all()


def test_k2_agrees_to_second_order() -> None:
    gaps = []
    for scale in (1e-1, 1e-2):
        near = OTHER + scale * LOGITS
        log_prob = near.log_softmax(0)
        true = (log_prob.exp() * (log_prob - OTHER)).sum()
        gaps.append(float((expectation("k2", near)[0] - true).abs() / true))
    assert gaps[1] < 0.15 * gaps[0] and gaps[1] < 1e-2


def test_gradients_are_those_of_the_table() -> None:
    torch.testing.assert_close(expectation("k1")[1], torch.zeros_like(LOGITS))
    torch.testing.assert_close(expectation("k2")[1], exact(forward=False)[1])
    torch.testing.assert_close(expectation("k3")[1], exact(forward=True)[1])
    log_prob = LOGITS.log_softmax(0)
    share = log_prob.exp()
    scores = torch.eye(4, dtype=torch.float64) - share
    wanted = ((share * (log_prob - OTHER).sign())[:, None] * scores).sum(0)
    torch.testing.assert_close(expectation("abs")[1], wanted)


@pytest.mark.parametrize("against", ["reference", "old", "behaviour", "teacher"])
def test_the_column_of_each_opponent_is_read(against: str) -> None:
    log_prob = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    other = torch.tensor([[-1.5, -1.0]], dtype=torch.float64)
    decisions = Decisions(mask=torch.ones(1, 2, dtype=torch.bool)).with_extras({f"{against}_log_prob": other})
    evaluation = Evaluation(log_prob=log_prob)
    for kind, wanted in (
        ("k1", [0.5, -1.0]),
        ("k2", [0.125, 0.5]),
        ("k3", [(-0.5 + 0.5) + 2.718281828459045**-0.5 - 0.5, 2.718281828459045 - 2.0]),
        ("abs", [0.5, 1.0]),
    ):
        part = Divergence(kind, against)
        assert part(evaluation, decisions)[0].tolist() == pytest.approx(wanted)
        assert part.needs == {"log_prob", f"{against}_log_prob"}
        assert torch.equal(part.metrics(evaluation, decisions)[f"kl_{against}"], part(evaluation, decisions))


def test_exact_reads_the_probe() -> None:
    part = Divergence("exact", "teacher")
    numbers = torch.tensor([[0.5, 0.25]])
    decisions = Decisions(mask=torch.ones(1, 2, dtype=torch.bool))
    assert part.needs == {"probe:kl_teacher"}
    assert torch.equal(part(Evaluation(probes={"kl_teacher": numbers}), decisions), numbers)
    with pytest.raises(MissingColumn, match="Divergence needs column 'kl_teacher'"):
        part(Evaluation(), decisions)
    with pytest.raises(MissingColumn, match="Divergence needs column 'reference_log_prob'"):
        Divergence()(Evaluation(log_prob=numbers), decisions)


def test_far_policies_stay_finite() -> None:
    log_prob = torch.tensor([-4000.0, 0.0], requires_grad=True)
    value = estimate(log_prob, torch.tensor([0.0, -4000.0]), "k3")
    value.sum().backward()
    assert value.isfinite().all() and log_prob.grad is not None and log_prob.grad.isfinite().all()


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind must be one of k1, k2, k3, abs, exact; got 'k4'"):
        Divergence("k4")
    with pytest.raises(ValueError, match="kind must be one of k1, k2, k3, abs; got 'exact'"):
        estimate(LOGITS, OTHER, "exact")


def test_entropy_is_a_bonus() -> None:
    entropy = torch.tensor([[0.3, 0.7]], requires_grad=True)
    decisions = Decisions(mask=torch.ones(1, 2, dtype=torch.bool))
    Entropy()(Evaluation(entropy=entropy), decisions).sum().backward()
    assert entropy.grad is not None and entropy.grad.tolist() == [[-1.0, -1.0]]
    assert torch.equal(Entropy().metrics(Evaluation(entropy=entropy), decisions)["entropy"], entropy)
