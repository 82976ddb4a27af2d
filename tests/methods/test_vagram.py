"""VaGraM's terms: what each loss costs, by hand and by a plain loop; shares, clip, warm-up, release; refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.registry import method
from ascent.methods.vagram import LOSSES

ROWS, MEMBERS, SIZE, VALUES = 6, 3, 4, 2


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(outputs: int = SIZE + 1, seed: int = 0) -> tuple[Evaluation, Decisions]:
    terminated = torch.zeros(ROWS, 1, dtype=torch.bool)
    terminated[2] = True
    decisions = Decisions(
        mask=torch.ones(ROWS, 1, dtype=torch.bool),
        action=normal(ROWS, 1, 2, seed=seed),
        reward=normal(ROWS, 1, seed=seed + 1),
        terminated=terminated,
        extras={
            "change": normal(ROWS, 1, SIZE, seed=seed + 2),
            "value_slope": normal(ROWS, 1, VALUES, SIZE, seed=seed + 3),
            "state_value": normal(ROWS, 1, VALUES, seed=seed + 4),
            "bootstrap": (torch.arange(ROWS)[:, None, None] + torch.arange(MEMBERS)).remainder(3).double(),
            "warm_up": torch.full((ROWS, 1), 0.5, dtype=torch.float64),
        },
    )
    said = normal(ROWS, 1, MEMBERS * outputs, seed=seed + 5).requires_grad_()
    worth = normal(ROWS, 1, MEMBERS * VALUES, seed=seed + 6).requires_grad_()
    return Evaluation(outputs=said, probes={"predicted_value": worth}), decisions


def model(**parameters: Any) -> Method:
    return method("vagram", **parameters).companions["model"]


def by_hand(loss: str, evaluation: Evaluation, decisions: Decisions, release: bool = False) -> float:
    """A plain loop over rows, members, value functions and numbers; slopes are not clipped."""
    width = evaluation.outputs.shape[-1] // MEMBERS
    slopes = decisions.column("value_slope")[:, 0]
    slopes = slopes.cumsum(1) if release else slopes
    values = decisions.column("state_value")[:, 0]
    total = 0.0
    for row in range(ROWS):
        for member in range(MEMBERS):
            said = evaluation.outputs[row, 0, member * width : (member + 1) * width]
            error = said[:SIZE] - decisions.column("change")[row, 0]
            reward = said[SIZE] - decisions.reward[row, 0]
            state = 0.0
            for v in range(VALUES):
                slope = slopes[row, v]
                guess = evaluation.column("predicted_value")[row, 0, member * VALUES + v]
                worth = values[row, v].abs() / values[:, v].abs().mean()
                state += {
                    "vagram": sum(float(g * e) ** 2 for g, e in zip(slope, error, strict=True)),
                    "taylor": float(slope @ error) ** 2,
                    "mse": float(error @ error),
                    "itervaml": float(guess - values[row, v]) ** 2,
                    "value": float(worth * (error @ error)),
                    "nll": float(0.5 * ((error**2) * torch.exp(-said[SIZE + 1 :])).sum() + 0.5 * said[SIZE + 1 :].sum())
                    if width > SIZE + 1
                    else 0.0,
                }[loss] / VALUES
            state = state / SIZE if release else state
            warm = 0.5 * (float(error @ error) + float(reward) ** 2) / (SIZE + 1)
            share = float(decisions.column("bootstrap")[row, 0, member])
            total += share * (state + float(reward) ** 2 + warm) / (ROWS * MEMBERS)
    return total


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_a_plain_loop(loss: str) -> None:
    evaluation, decisions = batch(2 * SIZE + 1 if loss == "nll" else SIZE + 1)
    found, _ = model(loss=loss, clip_quantile=1.0).loss(evaluation, decisions)
    assert found.item() == pytest.approx(by_hand(loss, evaluation.detach(), decisions), rel=1e-12)


def test_the_release_accumulates_slopes_and_averages_over_the_state() -> None:
    evaluation, decisions = batch()
    found, _ = model(variant="release").loss(evaluation, decisions)
    assert found.item() == pytest.approx(by_hand("vagram", evaluation.detach(), decisions, release=True), rel=1e-12)


def test_unit_slopes_make_it_the_squared_error() -> None:
    evaluation, decisions = batch()
    ones = decisions.with_extras({"value_slope": torch.ones(ROWS, 1, VALUES, SIZE, dtype=torch.float64)})
    vagram, mse = (model(loss=loss).loss(evaluation, ones)[0] for loss in ("vagram", "mse"))
    torch.testing.assert_close(vagram, mse, rtol=1e-12, atol=0)


def test_the_clip_is_of_the_whole_update_and_not_of_its_parts() -> None:
    evaluation, decisions = batch()
    built = model(clip_quantile=0.5)
    prepared = built.prepare(decisions, evaluation)
    norm = prepared.column("slope").norm(dim=-1)
    limits = torch.quantile(decisions.column("value_slope").norm(dim=-1)[:, 0], 0.5, dim=0)
    torch.testing.assert_close(norm[:, 0].amax(0), limits)
    whole = built.loss(evaluation, prepared)[0]
    parts = sum(built.loss(evaluation.rows(slice(i, i + 2)), prepared.rows(slice(i, i + 2)))[0] for i in (0, 2, 4))
    torch.testing.assert_close(whole, parts)
    unclipped = model(clip_quantile=1.0).loss(evaluation, decisions)[0]
    assert whole < unclipped


def test_slopes_at_terminal_states_can_be_masked() -> None:
    evaluation, decisions = batch()
    prepared = model(mask_terminal=True, clip_quantile=1.0).prepare(decisions, evaluation)
    assert (prepared.column("slope")[2] == 0).all() and (prepared.column("slope")[1] != 0).any()


def test_without_slopes_the_reward_and_the_floor_remain() -> None:
    evaluation, decisions = batch()
    flat = decisions.with_extras({"value_slope": torch.zeros(ROWS, 1, VALUES, SIZE, dtype=torch.float64)})
    built = model(warm_up=0)
    loss, metrics = built.loss(evaluation, flat)
    assert loss == metrics["loss/reward"] and metrics["loss/state"] == 0
    floored = model(warm_up=0, floor=0.25).loss(evaluation, flat)[1]["loss/state"]
    torch.testing.assert_close(floored, 0.25 * model(loss="mse").loss(evaluation, flat)[1]["loss/state"])


def test_the_reward_is_not_weighed_by_slopes() -> None:
    evaluation, decisions = batch()
    steep = decisions.with_extras({"value_slope": 100.0 * decisions.column("value_slope")})
    built = model(clip_quantile=1.0)
    first, second = (built.loss(evaluation, rows)[1] for rows in (decisions, steep))
    assert first["loss/reward"] == second["loss/reward"]
    torch.testing.assert_close(second["loss/state"], 1e4 * first["loss/state"])


def test_a_member_learns_from_its_bootstrap_only() -> None:
    evaluation, decisions = batch()
    shares = decisions.column("bootstrap").clone()
    shares[..., 1] = 0.0
    model().loss(evaluation, decisions.with_extras({"bootstrap": shares}))[0].backward()
    grad = evaluation.outputs.grad
    assert grad is not None
    found = grad.view(ROWS, MEMBERS, SIZE + 1).abs().sum((0, 2))
    assert found[1] == 0 and found[0] > 0 and found[2] > 0


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"loss": "mle"}, "loss must be one of"),
        ({"clip_quantile": 0.0}, "clip_quantile must be"),
        ({"floor": 0.1, "loss": "mse"}, "floor must be 0"),
        ({"members": 3, "elites": 4}, "elites must be at most members"),
        ({"model_hidden": (16, 0)}, "model_hidden must be"),
        ({"horizon": (0, 0, 0, 1)}, "horizon must be"),
        ({"share": (5, 1, 0.0, 0.9)}, "share's last epoch"),
        ({"share": (0, 1)}, "share must be four numbers"),
        ({"held_out": 1.0}, "held_out must be"),
        ({"batch": 300, "start": 100}, "start must be"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method("vagram", **parameters)


def test_its_policy_and_critics_are_those_of_sac() -> None:
    built, base = method("vagram"), method("sac", temperature=0.1, updates=20)
    assert built.losses == base.losses and built.companions["critic"] == base.companions["critic"]
