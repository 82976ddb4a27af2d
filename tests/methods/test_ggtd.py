"""ggtd: its reductions to plain PPO and SAC targets, members by themselves, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.returns import GAE, LambdaReturn, MemberGAE, MemberReturn
from ascent.core.uncertainty import LAPLACE, InverseVarianceLoss, UncertainValueLoss
from ascent.methods.ggtd import VARIANTS, AverageOutcome, MemberSoftValue


def episode(members: int, seed: int = 0, rows: int = 5, columns: int = 7) -> Decisions:
    draw = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    ended = torch.rand(rows, columns, generator=draw) < 0.2
    cut = torch.rand(rows, columns, generator=draw) < 0.2
    return Decisions(
        mask=torch.rand(rows, columns, generator=draw) < 0.9,
        reward=numbers(rows, columns),
        value=numbers(rows, columns, members),
        next_value=numbers(rows, columns, members),
        terminated=ended,
        truncated=cut & ~ended,
    )


def member(decisions: Decisions, k: int) -> Decisions:
    return decisions.replace(value=decisions.value[..., k], next_value=decisions.next_value[..., k])


def test_each_member_has_the_advantages_of_its_own_values() -> None:
    decisions = episode(5)
    each = torch.stack([GAE(0.9, 0.8)(member(decisions, k)) for k in range(5)], -1)
    targets = torch.stack([LambdaReturn(0.9, 0.8)(member(decisions, k)) for k in range(5)], -1)
    torch.testing.assert_close(MemberGAE(0.9, 0.8)(decisions), each.mean(-1))
    torch.testing.assert_close(MemberReturn(0.9, 0.8)(decisions), targets)


def test_one_member_is_ordinary_gae() -> None:
    decisions = episode(1)
    torch.testing.assert_close(MemberGAE(0.99, 0.95)(decisions), GAE(0.99, 0.95)(member(decisions, 0)))


def test_base_is_the_squared_error_of_every_member() -> None:
    decisions, now, _ = batch("base")
    found = ascent.method("ggtd", variant="base").losses["value"].value(now, decisions)
    torch.testing.assert_close(found, (now.value - decisions.value_target).square().sum(-1))


def batch(variant: str, members: int = 5, raw: float | None = None) -> tuple[Decisions, Evaluation, Tensor]:
    draw = torch.Generator().manual_seed(3)
    value = torch.randn(6, 4, members, dtype=torch.float64, generator=draw).requires_grad_()
    spread = torch.randn(6, 4, members, dtype=torch.float64, generator=draw)
    spread = (spread if raw is None else torch.full_like(spread, raw)).requires_grad_()
    target = torch.randn(6, 4, members, dtype=torch.float64, generator=draw)
    mask = torch.ones(6, 4, dtype=torch.bool)
    probes = {} if variant == "base" else {"value_spread": spread}
    return Decisions(mask=mask, value_target=target), Evaluation(value=value, probes=probes), value


def test_shape_two_moves_the_values_as_half_the_squared_error_of_the_mean_does() -> None:
    decisions, now, value = batch("ggd", raw=1.8545865421312275)  # softplus^-1(2)
    found = ascent.method("ggtd", variant="ggd").losses["value"].value(now, decisions).sum()
    (gradient,) = torch.autograd.grad(found, value)
    torch.testing.assert_close(gradient, 2 * (value - decisions.value_target).detach() / 5)


@pytest.mark.parametrize(
    "variant, spread, kind, loss",
    [
        ("base", "none", None, None),
        ("gd", "variance", None, None),
        ("iv_gd", "variance", "biv", "squared"),
        ("ggd", "shape", None, None),
        ("iv_ggd", "shape", "biv", "absolute"),
        ("iev_ggd", "shape", "biev", "absolute"),
    ],
)
def test_variants_are_those_of_the_release(variant: str, spread: str, kind: str | None, loss: str | None) -> None:
    assert set(VARIANTS) == {"base", "gd", "iv_gd", "ggd", "iv_ggd", "iev_ggd"}
    for algorithm in ("ppo", "sac"):
        method = ascent.method("ggtd", variant=variant, algorithm=algorithm)
        losses = (method if algorithm == "ppo" else method.companions["critic"]).losses
        value = losses["value"].value
        assert isinstance(value, UncertainValueLoss) and value.spread == spread
        assert ("epistemic" in losses) == (kind is not None)
        if kind is not None:
            part = losses["epistemic"].value
            assert isinstance(part, InverseVarianceLoss) and (part.kind, part.loss) == (kind, loss)
            assert losses["epistemic"].coefficient == pytest.approx(0.1 * 0.5)  # both halve the critic's loss


def test_the_regulariser_by_a_plain_loop_averaged_again_or_added() -> None:
    decisions, now, _ = batch("iev_ggd")
    part = ascent.method("ggtd").losses["epistemic"].value
    assert isinstance(part, InverseVarianceLoss)
    part = dataclasses.replace(part, least=4)
    prepared = decisions.with_extras(part.prepare(decisions, now, {}))
    weight = prepared.column("epistemic_weight")[..., 0]
    error = (now.value - decisions.value_target).detach()
    expected = sum(weight[i, j] * error[i, j].abs().sum() for i in range(6) for j in range(4))
    torch.testing.assert_close(part(now, prepared).sum().detach(), expected)
    mean, total = (ascent.method("ggtd", reduction=name) for name in ("token-mean", "token-sum"))
    assert (mean.losses["epistemic"].reduction, total.losses["epistemic"].reduction) == ("token-mean", "token-sum")


def test_a_members_target_is_the_smaller_of_its_two_networks() -> None:
    following = torch.tensor([[[1.0, 5.0, 3.0, 2.0, 4.0, 6.0]]])  # first critic's members, then the second's
    decisions = Decisions(
        mask=torch.ones(1, 1, dtype=torch.bool),
        next_value=following,
        extras={"temperature": torch.tensor([[0.5]]), "next_log_prob": torch.tensor([[2.0]])},
    )
    assert MemberSoftValue()(decisions).tolist() == [[[0.0, 3.0, 2.0, 0.0, 3.0, 2.0]]]


def test_the_policy_climbs_the_smaller_average() -> None:
    outcome = torch.tensor([[[1.0, 5.0, 3.0, 2.0, 4.0, 6.0]]], requires_grad=True)
    found = AverageOutcome()(Evaluation(outcome=outcome), Decisions(mask=torch.ones(1, 1, dtype=torch.bool)))
    assert found.tolist() == [[-3.0]]
    (gradient,) = torch.autograd.grad(found.sum(), outcome)
    torch.testing.assert_close(gradient, torch.tensor([[[-1 / 3] * 3 + [0.0] * 3]]))


def test_heads_begin_at_the_laplace_case() -> None:
    from ascent.policies.action_head import Head
    from ascent.policies.actor_critic import SPREAD, ActorCritic
    from ascent.policies.critics import Critics

    policy = ActorCritic(3, Head("categorical", (2,)), members=5, spread=LAPLACE)
    observation = torch.zeros(2, 4, 3)
    decisions = Decisions(mask=torch.ones(2, 4, dtype=torch.bool), context={"observation": observation})
    now = policy.evaluate(decisions, frozenset({"value", SPREAD}))
    assert now.value.shape == (2, 4, 5)
    torch.testing.assert_close(now.column("value_spread"), torch.full((2, 4, 5), LAPLACE))
    alone = policy.evaluate(decisions, frozenset({SPREAD}))  # what a look at the widths before an update asks for
    assert list(alone) == ["value_spread"] and torch.equal(alone.column("value_spread"), now.column("value_spread"))
    critics = Critics(3, 1, 10, (8,), spread=LAPLACE)
    value, spread = critics.said(observation, torch.zeros(2, 4, 1))
    assert value.shape == spread.shape == (2, 4, 10)
    torch.testing.assert_close(value, critics(observation, torch.zeros(2, 4, 1)))
    with pytest.raises(ValueError, match="members=None"):
        ActorCritic(3, Head("categorical", (2,)), spread=LAPLACE)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"algorithm": "dqn"}, "algorithm must be"),
        ({"variant": "iv"}, "variant must be"),
        ({"members": 1}, "members must be"),
        ({"coefficient": -1.0}, "coefficient must be"),
        ({"least": 0}, "least must be"),
        ({"form": "sum"}, "form must be"),
        ({"critics": 3}, "critics must be"),
        ({"over": "rows"}, "over must be"),
        ({"reduction": "sum"}, "reduction must be"),
        ({"target_rate": 2.0}, "target_rate must be"),
        ({"variant": "base", "extremes": True}, "extremes must be False with variant='base'"),
        ({"extremes": "True"}, "extremes must be one of"),
        ({"algorithm": "sac", "clip": -1.0}, "clip must be"),
        ({"algorithm": "sac", "batch": 64, "start": 32}, "start must be"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ascent.method("ggtd", **parameters)
