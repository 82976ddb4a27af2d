"""Methods that verl has too: where both read a paper alike, its numbers and ours are the same.

The differences of reading are set aside by configuration and stated at each test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("verl", reason="verl is not installed here; `make test-plugins` builds its environment")

from ascent.plugins.verl_feed import PREFIX
from tests.plugins.verl_batch import COLUMNS, ROWS, advantages, composed, configured, method_of, recorded, update

ACTOR = "actor_rollout_ref.actor"
# verl's vanilla loss is always dual-clipped (arXiv:1912.09729) at clip_ratio_c; ours only where a method says so.
NO_DUAL = f"{ACTOR}.clip_ratio_c=1e9"
SPLIT = [[[0, 5], [3, 6]], [[1], [4, 7, 2]]]
ONE = [[list(range(ROWS))]]


def clip(low: float, high: float) -> tuple[str, ...]:
    return f"{ACTOR}.clip_ratio_low={low}", f"{ACTOR}.clip_ratio_high={high}", NO_DUAL


def estimated(name: str, *more: str, seed: int = 0) -> Tensor:
    """Advantages of one of verl's own estimators."""
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    _, decisions = recorded(method_of("grpo", {}), seed)
    config, _ = composed(f"algorithm.adv_estimator={name}", *more)
    uids = np.array([f"p{number}" for number in decisions.group.tolist()], dtype=object)
    data = DataProto.from_dict(
        tensors={
            "token_level_rewards": decisions.reward.clone(),
            "response_mask": decisions.mask.to(torch.int64),
        },
        non_tensors={"uid": uids},
    )
    scale = config.algorithm.norm_adv_by_std_in_grpo
    data = compute_advantage(data, name, norm_adv_by_std_in_grpo=scale, config=config.algorithm)
    return data.batch["advantages"] * decisions.mask


ESTIMATORS: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("grpo", {}, "grpo", ()),
    ("grpo", {}, "grpo_vectorized", ()),
    ("gspo", {}, "grpo", ()),
    ("dr_grpo", {}, "grpo", ("algorithm.norm_adv_by_std_in_grpo=false",)),
    ("dapo", {"overlong_buffer": 0.0}, "grpo", ()),
    ("rloo", {}, "rloo", ()),
    ("rloo", {}, "rloo_vectorized", ()),
    ("reinforce_plus_plus", {"kl_coefficient": 0.0}, "reinforce_plus_plus", ()),
    ("reinforce_plus_plus", {"kl_coefficient": 0.0, "variant": "baseline"}, "reinforce_plus_plus_baseline", ()),
]


@pytest.mark.parametrize("case", ESTIMATORS, ids=lambda case: f"{case[0]}-{case[2]}")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_advantages(case: tuple[str, dict[str, Any], str, tuple[str, ...]], seed: int) -> None:
    slug, parameters, name, more = case
    method = method_of(slug, parameters)
    _, decisions = recorded(method, seed)
    config, _ = configured(slug, parameters)
    ours = advantages(config, decisions)
    torch.testing.assert_close(ours, estimated(name, *more, seed=seed), rtol=0, atol=1e-6)
    assert float(ours.abs().max()) > 0.1


LOSSES: list[tuple[str, dict[str, Any], str, tuple[str, ...], bool]] = [
    ("grpo", {"kl_coefficient": 0.0}, "vanilla", clip(0.2, 0.2), False),
    ("grpo", {}, "vanilla", clip(0.2, 0.2), False),
    ("dapo", {"overlong_buffer": 0.0}, "vanilla", clip(0.2, 0.28), False),
    ("dr_grpo", {}, "vanilla", clip(0.2, 0.2), False),
    ("reinforce_plus_plus", {"kl_coefficient": 0.0}, "vanilla", clip(0.2, 0.2), False),
    # Ours multiplies by a mean over the response that has a gradient, verl's by a detached one: the sums agree.
    ("gspo", {"clip_low": 0.1, "clip_high": 0.1}, "gspo", clip(0.1, 0.1), False),
    ("gspo", {"variant": "token", "clip_low": 0.1, "clip_high": 0.1}, "gspo", clip(0.1, 0.1), False),
    # The paper leaves the weight open below; verl always has a lower bound.
    ("cispo", {"clip_low": 0.2, "clip_high": 0.3}, "cispo", clip(0.2, 0.3), False),
    ("rloo", {}, "gpg", (), False),
    # verl draws the dropped tokens by torch's generator, ours by a hash: with room for all candidates both drop all.
    (
        "entropy_mechanism",
        {"clip_fraction": 1.0, "covariance_low": 0.1, "covariance_high": 5.0, "clip_low": 0.2, "clip_high": 0.2},
        "clip_cov",
        (
            *clip(0.2, 0.2),
            f"{ACTOR}.policy_loss.clip_cov_ratio=1.0",
            f"{ACTOR}.policy_loss.clip_cov_lb=0.1",
            f"{ACTOR}.policy_loss.clip_cov_ub=5.0",
        ),
        True,
    ),
    (
        "entropy_mechanism",
        {"variant": "kl_cov", "kl_fraction": 0.2, "kl_coefficient": 0.5},
        "kl_cov",
        (f"{ACTOR}.policy_loss.kl_cov_ratio=0.2", f"{ACTOR}.policy_loss.ppo_kl_coef=0.5"),
        True,
    ),
]


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: f"{case[0]}-{case[2]}-{sorted(case[1])}".replace(" ", ""))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_losses(case: tuple[str, dict[str, Any], str, tuple[str, ...], bool], seed: int) -> None:
    slug, parameters, name, more, whole = case
    method = method_of(slug, parameters)
    evaluation, decisions = recorded(method, seed)
    config, ours = configured(slug, parameters)
    advantage = advantages(config, decisions)
    same = [
        f"{ACTOR}.loss_agg_mode={ours.loss_agg_mode}",
        f"{ACTOR}.loss_scale_factor={'null' if ours.loss_scale_factor is None else ours.loss_scale_factor}",
        f"{ACTOR}.use_kl_loss={str(ours.use_kl_loss).lower()}",
        f"{ACTOR}.kl_loss_coef={ours.kl_loss_coef}",
        f"{ACTOR}.kl_loss_type={ours.kl_loss_type}",
    ]
    _, theirs = composed(f"{ACTOR}.policy_loss.loss_mode={name}", *same, *more)
    assert ours.policy_loss.loss_mode == PREFIX + slug and theirs.policy_loss.loss_mode == name
    ranks = ONE if whole else SPLIT
    loss, gradient, _ = update(ours, evaluation, decisions, advantage, ranks)
    loss_verl, gradient_verl, _ = update(theirs, evaluation, decisions, advantage, ranks)
    # verl adds 1e-8 to lengths, and the gradient of a token at the edge of the clip is shared between equal numbers.
    torch.testing.assert_close(loss, loss_verl, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient["log_prob"], gradient_verl["log_prob"], rtol=0, atol=1e-6)
    assert float(gradient["log_prob"].abs().max()) > 1e-3


def test_a_lone_response_is_read_differently() -> None:
    """verl keeps its raw score as its advantage; ours is 0, for it has nobody to be compared with."""
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    rewards = torch.zeros(3, COLUMNS)
    rewards[:, -1] = torch.tensor([0.7, 1.0, 0.0])
    mask, uids = torch.ones(3, COLUMNS), np.array(["alone", "pair", "pair"], dtype=object)
    arguments = {"token_level_rewards": rewards, "response_mask": mask, "index": uids}
    verls, _ = get_adv_estimator_fn("grpo")(**arguments)
    ours, _ = get_adv_estimator_fn(f"{PREFIX}grpo")(**arguments, config=None)
    torch.testing.assert_close(verls[0], torch.full((COLUMNS,), 0.7 / (1 + 1e-6)))
    assert float(ours[0].abs().max()) == 0.0
    torch.testing.assert_close(ours[1:], verls[1:])


def test_a_score_on_the_tool_output_that_ends_a_response_counts() -> None:
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    rewards, mask = torch.zeros(4, COLUMNS), torch.ones(4, COLUMNS)
    rewards[:, -1] = torch.tensor([1.0, 0.0, 0.5, 0.0])
    mask[0, -3:] = 0
    mask[2, :-1] = 0
    arguments = {"token_level_rewards": rewards, "response_mask": mask, "index": np.array(["a"] * 4, dtype=object)}
    verls, _ = get_adv_estimator_fn("grpo")(**{**arguments, "token_level_rewards": rewards.clone()})
    ours, returns = get_adv_estimator_fn(f"{PREFIX}grpo")(**arguments)
    torch.testing.assert_close(ours, verls)
    torch.testing.assert_close(returns, rewards.sum(1, keepdim=True) * mask)


def test_a_constant_group_is_exactly_zero_here() -> None:
    """verl divides the rounding noise of the mean by 0 + 1e-6."""
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    rewards = torch.zeros(7, COLUMNS)
    rewards[:, -1] = 0.1
    mask, uids = torch.ones(7, COLUMNS), np.array(["same"] * 7, dtype=object)
    ours, _ = get_adv_estimator_fn(f"{PREFIX}grpo")(rewards, mask, index=uids)
    assert float(ours.abs().max()) == 0.0


def test_dual_clip_is_read_differently() -> None:
    """A negative token whose ratio is above 3 has no gradient in verl's vanilla loss, and has one in GRPO's paper."""
    method = method_of("grpo", {"kl_coefficient": 0.0})
    evaluation, decisions = recorded(method)
    decisions = decisions.replace(old_log_prob=decisions.old_log_prob - 2.0)
    config, ours = configured("grpo", {"kl_coefficient": 0.0})
    _, theirs = composed(f"{ACTOR}.loss_agg_mode={ours.loss_agg_mode}")
    assert theirs.clip_ratio_c == 3.0
    advantage = advantages(config, decisions)
    _, gradient, _ = update(ours, evaluation, decisions, advantage, ONE)
    _, gradient_verl, _ = update(theirs, evaluation, decisions, advantage, ONE)
    above = (evaluation.log_prob - decisions.old_log_prob > np.log(3.0)) & (advantage < 0) & decisions.mask
    assert bool(above.any())
    assert bool((gradient["log_prob"][above] != 0).all()) and bool((gradient_verl["log_prob"][above] == 0).all())
    torch.testing.assert_close(gradient["log_prob"][~above], gradient_verl["log_prob"][~above])
