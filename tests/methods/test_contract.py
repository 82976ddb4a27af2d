"""What every registered method and every companion keeps, checked on random inputs in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.decisions import Decisions
from ascent.core.divergences import Entropy
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.pairs import group_cells
from ascent.core.registry import cards, method
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term

# Settings beside the defaults whose parts the defaults do not reach.
VARIANTS: dict[str, list[dict[str, object]]] = {
    "reinforce": [{"baseline": "batch", "entropy_coefficient": 0.1}],
    "ppo": [{"entropy_coefficient": 0.1, "value_clip": 0.1}],
    "rloo": [{"kl_coefficient": 0.1}],
    "grpo": [{"kl_coefficient": 0.0, "scale": "batch"}],
    "gspo": [{"variant": "token", "clip_low": 0.1, "clip_high": 0.1}],
    "reinforce_plus_plus": [{"variant": "baseline"}],
    "entropy_mechanism": [
        {"clip_fraction": 0.3, "covariance_low": 0.1, "covariance_high": 9.0},
        {"clip_fraction": 0.3, "covariance_low": 0.2, "covariance_high": 1.0, "bounds": "quantile", "control": True},
        {"variant": "kl_cov", "kl_fraction": 0.3},
        {"variant": "kl_cov", "kl_fraction": 0.3, "control": True, "kl_kind": "k3"},
    ],
    "sac": [{"temperature_form": "log", "target_entropy": -2.0}],
    "forking_tokens": [
        {"normalise_by": "all", "overlong_buffer": 0.0},
        {"select": "bottom"},
        {"select": "random", "ties": "break"},
        {"select": "all", "rho": 0.5},
    ],
    "bapo": [
        {"positive_share": 0.55},
        {"positive_share": 0.6, "variant": "reference_code", "contribution": "gradient"},
    ],
    "capo": [
        {"base": "dr_grpo", "model": "sgd", "fisher": "expected", "policy_threshold": 1e-9},
        {"base": "reinforce", "symmetric": False, "top_k": 2, "variant": "reference"},
        {"control": True, "objective_threshold": 1e-4},
        {"level": "sequential", "diagnostics": True, "objective_floor": -0.05},
        {"level": "sentence", "control": True, "penalty": "policy"},
    ],
    "kdrl": [
        {"objective": "kd", "estimator": "k3", "ratio_limit": 5.0},
        {"objective": "sequential", "mask": "group"},
        {"mask": "response", "mask_norm": "all", "estimator": "exact", "schedule": "constant"},
        {"objective": "rl", "reward_shaping": 0.1},
    ],
    "otr": [{"estimator": "exact", "reduction": "token-mean"}],
    "sft": [{"weight": "probability"}],
    "p3o": [
        {"variant": "v1", "kl_at": "current"},
        {"variant": "token", "reward_scale": "difference"},
        {"average": "token"},
    ],
    "stabilizing_rl": [
        {"variant": "engines", "truncation": 1.1, "replay": "R3"},
        {"engine_correction": False, "length_norm": True, "clip_low": None},
    ],
    "submodular_rl": [
        {"credit": "official", "baseline": "none", "start_value": 1.0, "scale": 4.0},
        {"credit": "trajectory"},
        {"baseline": "critic"},
    ],
    "ggtd": [
        {"variant": "iv_gd", "members": 3, "least": 4},
        {"variant": "ggd", "over": "batch", "form": "product", "detach": True},
        {"algorithm": "sac", "members": 4, "reduction": "token-sum"},
        {"over": "batch", "extremes": True},
        {"algorithm": "sac", "variant": "gd", "extremes": True},
    ],
    "vagram": [
        {"loss": "taylor", "mask_terminal": True},
        {"loss": "itervaml", "warm_up": 0},
        {"loss": "nll"},
        {"loss": "value"},
        {"variant": "release", "floor": 0.1},
    ],
    "bayesian_network_marl": [{"critic": "own"}, {"critic": "own", "graph": "empty", "popart": True}, {"anneal": True}],
    "gbrl": [{"critic": "network"}, {"algorithm": "awr", "critic": "network"}],
    "copg": [{"form": "squared"}, {"form": "detached"}],
    "naive_pg": [{"baseline": "column"}],
    "props": [
        {"objective": "ros"},
        {"objective": "none"},
        {"kl": "taken", "advantage_weighted": True},
        {"kl": "target"},
    ],
}


def _all() -> list[tuple[str, Method]]:
    found = []
    for card in cards():
        for place, parameters in enumerate([{}, *VARIANTS.get(card.slug, [])]):
            built = method(card.slug, **parameters)
            found.append((f"{card.slug}-{place}", built))
            found += [(f"{card.slug}-{place}-{name}", companion) for name, companion in built.companions.items()]
    # Parts of different papers in one method.
    mixed = method("dapo").replace(advantage=Centre(leave_one_out=True)).with_terms(entropy=Term(Entropy(), 0.01))
    found.append(("dapo+rloo+entropy", mixed))
    # Adaptive bounds, a leave-one-out baseline, the forks only, and a teacher on the wrong responses.
    bounded = method("bapo", positive_share=0.55)
    policy = dataclasses.replace(bounded.losses["policy"], keep=method("forking_tokens", rho=0.4).losses["policy"].keep)
    teacher = method("kdrl", mask="response", schedule="constant").losses["teacher"]
    joined = bounded.replace(advantage=Centre(leave_one_out=True), losses={"policy": policy, "teacher": teacher})
    found.append(("bapo+rloo+forking_tokens+kdrl", joined))
    found.append(
        (
            "entropy_mechanism+dapo",
            method("entropy_mechanism", clip_fraction=0.3, covariance_low=0.1).with_terms(
                bounded=Term(ClippedRatio(low=0.2, high=0.28))
            ),
        )
    )
    return found


METHODS = _all()
each = pytest.mark.parametrize("built", [pair[1] for pair in METHODS], ids=[pair[0] for pair in METHODS])
ROWS, COLUMNS = 12, 7


def leaves(evaluation: Evaluation) -> dict[str, Tensor]:
    return {name: evaluation.column(name) for name in evaluation}


def rebuilt(columns: dict[str, Tensor], probes: set[str]) -> Evaluation:
    own = {name: tensor for name, tensor in columns.items() if name not in probes}
    return Evaluation(**own, probes={name: columns[name] for name in probes})


def gradients(
    built: Method, columns: dict[str, Tensor], probes: set[str], decisions: Decisions
) -> tuple[Tensor, dict[str, Tensor]]:
    fresh = {name: tensor.detach().clone().requires_grad_() for name, tensor in columns.items()}
    loss, _ = built.loss(rebuilt(fresh, probes), decisions)
    loss.backward()
    return loss.detach(), {n: t.grad if t.grad is not None else torch.zeros_like(t) for n, t in fresh.items()}


def case(built: Method, seed: int = 3) -> tuple[dict[str, Tensor], set[str], Decisions]:
    evaluation, decisions = built.example(ROWS, COLUMNS, seed, torch.float64)
    columns = {name: tensor.detach() for name, tensor in leaves(evaluation).items()}
    if "old_log_prob" in built.needs and "old_log_prob" not in decisions:
        decisions = decisions.replace(old_log_prob=columns["log_prob"])
    return columns, set(evaluation.probes), built.credit(decisions)


def close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name in first:
        assert torch.allclose(first[name], second[name], rtol=0, atol=1e-10), name


@each
def test_some_gradient_flows(built: Method) -> None:
    columns, probes, decisions = case(built)
    _, grads = gradients(built, columns, probes, decisions)
    assert any(bool((grad != 0).any()) for grad in grads.values())


@each
@pytest.mark.parametrize("sizes", [(1,) * ROWS, (5, 7), (4, 1, 7)])
def test_split_into_micro_batches(built: Method, sizes: tuple[int, ...]) -> None:
    columns, probes, decisions = case(built)
    whole_loss, whole = gradients(built, columns, probes, decisions)
    prepared = built.prepare(decisions, rebuilt(columns, probes))
    if built.keep_together == "group":
        parts = [torch.nonzero(group_cells(decisions)[0] == cell)[:, 0] for cell in group_cells(decisions)[0].unique()]
    else:
        parts = list(torch.randperm(ROWS, generator=torch.Generator().manual_seed(0)).split(list(sizes)))
    total, summed = (
        torch.zeros((), dtype=torch.float64),
        {name: torch.zeros_like(tensor) for name, tensor in columns.items()},
    )
    for part in parts:
        loss, grads = gradients(built, {n: t[part] for n, t in columns.items()}, probes, prepared.rows(part))
        total = total + loss
        for name, grad in grads.items():
            summed[name][part] += grad
    assert torch.allclose(total, whole_loss, rtol=0, atol=1e-10 * max(1.0, float(whole_loss.abs())))
    close(whole, summed)


@each
def test_row_order_does_not_matter(built: Method) -> None:
    columns, probes, decisions = case(built)
    decisions = decisions.replace(key=torch.arange(ROWS))
    loss, grads = gradients(built, columns, probes, decisions)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    shuffled_loss, shuffled = gradients(built, {n: t[order] for n, t in columns.items()}, probes, decisions.rows(order))
    assert torch.allclose(loss, shuffled_loss, rtol=0, atol=1e-10 * max(1.0, float(loss.abs())))
    close({name: grad[order] for name, grad in grads.items()}, shuffled)


def padded(tensor: Tensor, fill: float) -> Tensor:
    if tensor.dim() < 2:
        return tensor
    filler = torch.full_like(tensor[:, :1], False if tensor.dtype == torch.bool else fill)
    return torch.cat([tensor[:, :2], filler, tensor[:, 2:], filler, filler], dim=1)


@each
def test_padding_does_not_matter(built: Method) -> None:
    """Masked columns inside and after the row, with garbage in every column, change nothing, from credit on."""
    evaluation, decisions = built.example(ROWS, COLUMNS, 3, torch.float64)
    columns, probes = {n: t.detach() for n, t in leaves(evaluation).items()}, set(evaluation.probes)
    if "budget" not in decisions:
        decisions = decisions.with_extras({"budget": torch.full((ROWS,), COLUMNS)})
    flat = decisions.to_tensors()
    wide = Decisions.from_tensors(
        {name: padded(t, float("nan") if t.is_floating_point() else 3) for name, t in flat.items()}
    )
    loss, grads = gradients(built, columns, probes, decisions)
    wide_loss, wide_grads = gradients(built, {n: padded(t, float("nan")) for n, t in columns.items()}, probes, wide)
    assert torch.allclose(loss, wide_loss, rtol=0, atol=1e-10 * max(1.0, float(loss.abs())))
    close({name: padded(grad, 0.0) for name, grad in grads.items()}, wide_grads)


@each
def test_masked_decisions_get_no_gradient(built: Method) -> None:
    columns, probes, decisions = case(built)
    assert bool((~decisions.mask).any())
    _, grads = gradients(built, columns, probes, decisions)
    for grad in grads.values():
        assert bool((grad[~decisions.mask] == 0).all())


@each
def test_empty_mask_is_zero(built: Method) -> None:
    columns, probes, decisions = case(built)
    empty = decisions.replace(mask=torch.zeros_like(decisions.mask), advantage=None, value_target=None)
    loss, grads = gradients(built, columns, probes, empty)
    assert float(loss) == 0.0
    assert all(bool((grad == 0).all()) for grad in grads.values())


@each
def test_credit_and_loss_have_no_memory(built: Method) -> None:
    columns, probes, decisions = case(built)
    again = built.credit(decisions)
    for name in ("advantage", "value_target"):
        if name in decisions:
            assert torch.equal(decisions.column(name), again.column(name))
    first, second = (gradients(built, columns, probes, decisions) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_example_is_valid(built: Method, dtype: torch.dtype) -> None:
    evaluation, decisions = built.example(8, 6, 0, dtype)
    loss, metrics = built.loss(evaluation, decisions)
    loss.backward()
    assert loss.dtype == dtype and loss.dim() == 0 and bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(metric)) and not metric.requires_grad for metric in metrics.values())
    reached = [column.grad for column in leaves(evaluation).values() if column.grad is not None]
    assert reached and all(grad.dtype == dtype for grad in reached)


@pytest.mark.parametrize(
    "built", [built for _, built in METHODS if built.accept], ids=[n for n, b in METHODS if b.accept]
)
def test_dynamic_sampling_refuses_groups_of_equal_scores(built: Method) -> None:
    _, decisions = built.example(ROWS, COLUMNS, 3, torch.float64)
    assert built.accept is not None
    assert bool(built.accept(decisions).all())
    even = torch.where(decisions.group[:, None] == 1, torch.zeros_like(decisions.reward), decisions.reward)
    assert torch.equal(built.accept(decisions.replace(reward=even)), decisions.group != 1)
