"""Every registered method through verl's own functions: the update is Ascent's own, however verl splits it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ascent.core.registry import cards

pytest.importorskip("verl", reason="verl is not installed here; `make test-plugins` builds its environment")

from ascent.plugins.verl.functions import identity
from ascent.plugins.verl_feed import PREFIX, Refused, overrides, read, support
from tests.plugins.verl_batch import (
    COLUMNS,
    ROWS,
    advantages,
    composed,
    configured,
    method_of,
    micro_batch,
    own,
    recorded,
    update,
)

LANGUAGE = [item for item in cards() if item.family in ("language", "both")]
FED = [item.slug for item in LANGUAGE if support(item.build()).supported]
UNFED = [item.slug for item in LANGUAGE if item.slug not in FED]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bapo", {"variant": "reference_code"}),
    ("cispo", {"clip_low": 0.2, "clip_high": 0.3}),
    ("dapo", {"overlong_buffer": 0.0, "dynamic_sampling": False}),
    ("dr_grpo", {"horizon": 5.0}),
    ("entropy_mechanism", {"clip_fraction": 0.2, "covariance_low": 0.0, "clip_low": 0.2, "clip_high": 0.2}),
    ("entropy_mechanism", {"variant": "kl_cov", "kl_fraction": 0.2, "entropy_coefficient": 0.01}),
    ("grpo", {"scale": "none", "kl_coefficient": 0.0, "reduction": "token-mean"}),
    ("grpo", {"scale": "batch", "ddof": 0, "reduction": "seq-mean-token-sum"}),
    ("gspo", {"variant": "token", "clip_low": 0.1, "clip_high": 0.1}),
    ("reinforce", {"entropy_coefficient": 0.01, "discount": 0.9}),
    ("reinforce", {"baseline": "batch", "reduction": "token-sum"}),
    ("reinforce_plus_plus", {"variant": "baseline"}),
    ("reinforce_plus_plus", {"kl_coefficient": 0.0}),
    ("rloo", {"kl_coefficient": 0.05}),
]
CASES = [(slug, {}) for slug in FED] + VARIANTS
ONE = [[list(range(ROWS))]]
SPLITS = {
    "one micro-batch": ONE,
    "micro-batches of uneven size": [[[0, 1, 2], [3], [4, 5, 6, 7]]],
    "two ranks, groups torn": [[[0, 5], [3, 6]], [[1], [4, 7, 2]]],
    "a rank for each pair of rows": [[[7, 0]], [[1, 6]], [[5, 2]], [[3, 4]]],
}


def case_id(case: object) -> str:
    return str(case).replace(" ", "")


@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_update_is_ascents_own(case: tuple[str, dict[str, Any]], seed: int) -> None:
    slug, parameters = case
    method = method_of(slug, parameters)
    evaluation, decisions = recorded(method, seed)
    config, actor = configured(slug, parameters)
    loss, gradient = own(method, evaluation, decisions)
    assert any(bool(column.abs().max() > 1e-4) for column in gradient.values())
    advantage = advantages(config, decisions)
    splits = {"one micro-batch": ONE} if read(method).whole else SPLITS
    for name, ranks in splits.items():
        entropy = actor.entropy_coeff != 0
        found, through_verl, _ = update(actor, evaluation, decisions, advantage, ranks, entropy)
        torch.testing.assert_close(found, loss, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        for column, numbers in gradient.items():
            torch.testing.assert_close(through_verl[column], numbers, rtol=0, atol=1e-6)


@pytest.mark.parametrize("slug", FED)
def test_single_precision(slug: str) -> None:
    method = method_of(slug, {})
    evaluation, decisions = recorded(method, 3, torch.float32)
    config, actor = configured(slug, {})
    _, gradient = own(method, evaluation, decisions)
    advantage = advantages(config, decisions)
    assert advantage.dtype == torch.float32
    _, through_verl, _ = update(actor, evaluation, decisions, advantage, ONE)
    torch.testing.assert_close(through_verl["log_prob"], gradient["log_prob"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("slug", UNFED)
def test_what_verl_cannot_feed_is_refused_by_name(slug: str) -> None:
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn

    reasons = read(method_of(slug, {})).reasons
    assert reasons
    rewards, mask = torch.zeros(2, 3), torch.ones(2, 3)
    with pytest.raises(Refused, match=slug) as refusal:
        get_adv_estimator_fn(PREFIX + slug)(rewards, mask, config={}, index=np.array(["a", "a"]))
    assert all(reason in str(refusal.value) for reason in reasons)
    assert get_policy_loss_fn(PREFIX + slug).slug == slug
    # verl builds the actor's configuration before it starts Ray, so the refusal comes there.
    policy_loss = "actor_rollout_ref.actor.policy_loss"
    target = f"{policy_loss}._target_=ascent.plugins.verl.AscentPolicyLoss"
    with pytest.raises(Exception, match="verl cannot run the method"):
        composed(target, f"{policy_loss}.loss_mode={PREFIX}{slug}")


def test_most_methods_are_fed() -> None:
    assert {"bapo", "cispo", "dapo", "dr_grpo", "entropy_mechanism", "grpo", "gspo", "reinforce"} <= set(FED)
    assert {"reinforce_plus_plus", "rloo"} <= set(FED)
    assert {"capo", "copg", "dpo", "forking_tokens", "ipo", "kdrl", "naive_pg", "p3o"} <= set(UNFED)


@pytest.mark.parametrize("slug", [slug for slug in FED if read(method_of(slug, {})).whole])
def test_a_choice_on_the_whole_update_refuses_a_part_of_it(slug: str) -> None:
    method = method_of(slug, {})
    evaluation, decisions = recorded(method)
    config, actor = configured(slug, {})
    advantage = advantages(config, decisions)
    for ranks in (SPLITS["micro-batches of uneven size"], SPLITS["two ranks, groups torn"]):
        with pytest.raises(Refused, match="per_micro_batch"):
            update(actor, evaluation, decisions, advantage, ranks)
    accept = "+actor_rollout_ref.actor.policy_loss.per_micro_batch=true"
    _, lenient = configured(slug, {}, accept)
    loss, gradient, _ = update(lenient, evaluation, decisions, advantage, SPLITS["two ranks, groups torn"])
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(gradient["log_prob"]).all())


def test_rollout_correction_multiplies_each_token() -> None:
    method = method_of("grpo", {"kl_coefficient": 0.0})
    evaluation, decisions = recorded(method)
    weights = torch.rand(ROWS, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    config, actor = configured("grpo", {"kl_coefficient": 0.0})
    advantage = advantages(config, decisions)
    _, plain, _ = update(actor, evaluation, decisions, advantage, SPLITS["two ranks, groups torn"])
    corrected = decisions.with_extras({"rollout_is_weights": weights})
    _, weighted, _ = update(actor, evaluation, corrected, advantage, SPLITS["two ranks, groups torn"])
    torch.testing.assert_close(weighted["log_prob"], plain["log_prob"] * weights)


def test_metrics_are_floats_with_the_same_names_in_every_micro_batch() -> None:
    from verl.utils.metric import Metric

    for slug in FED:
        method = method_of(slug, {})
        evaluation, decisions = recorded(method)
        config, actor = configured(slug, {}, "+actor_rollout_ref.actor.policy_loss.per_micro_batch=true")
        advantage = advantages(config, decisions)
        _, _, logged = update(actor, evaluation, decisions, advantage, SPLITS["two ranks, groups torn"])
        assert len({frozenset(metrics) for metrics in logged}) == 1
        assert "actor/ppo_kl" in logged[0]
        for metrics in logged:
            for value in metrics.values():
                assert not isinstance(value, torch.Tensor)
                assert not isinstance(value, Metric) or all(isinstance(number, float) for number in value.values)


def test_an_empty_micro_batch_gives_nothing() -> None:
    """verl fills batches up with rows without decisions."""
    from verl.workers.utils.losses import ppo_loss

    evaluation, decisions = recorded(method_of("gspo", {}))
    config, actor = configured("gspo", {})
    info = {"dp_size": 1, "batch_num_tokens": int(decisions.mask.sum()), "global_batch_size": ROWS}
    output, data = micro_batch(evaluation, decisions, advantages(config, decisions), [0, 1], **info)
    nothing = [torch.zeros_like(row) for row in data["response_mask"].unbind()]
    data["response_mask"] = torch.nested.as_nested_tensor(nothing, layout=torch.jagged)
    loss, _ = ppo_loss(config=actor, model_output={"log_probs": output["log_probs"]}, data=data)
    (gradient,) = torch.autograd.grad(loss, evaluation.log_prob)
    assert float(loss) == 0.0 and float(gradient.abs().max()) == 0.0


def test_padding_rows_and_the_width_do_not_change_the_advantages() -> None:
    for slug in FED:
        _, decisions = recorded(method_of(slug, {}))
        config, _ = configured(slug, {})
        found = advantages(config, decisions)
        wider = {name: decisions.column(name) for name in ("mask", "reward", "old_log_prob", "reference_log_prob")}
        wide = {name: torch.nn.functional.pad(column, (0, 2, 0, 1)) for name, column in wider.items()}
        group = torch.cat((decisions.group, torch.tensor([9])))
        again = advantages(config, type(decisions)(**wide, group=group))
        torch.testing.assert_close(again[:ROWS, :COLUMNS], found, rtol=0, atol=1e-12)
        assert float(again[ROWS:].abs().max()) == 0.0 and float(again[:, COLUMNS:].abs().max()) == 0.0


def test_the_multi_trajectory_trainer_leaves_the_rows_as_they_are() -> None:
    """V1 of verl reduces a session to its last output for its own grpo only."""
    from verl import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    _, decisions = recorded(method_of("grpo", {}))
    config, _ = configured("grpo", {})
    uids = np.array([f"p{number}" for number in decisions.group.tolist()], dtype=object)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": decisions.reward.clone(), "response_mask": decisions.mask.to(torch.int64)},
        non_tensors={"uid": uids},
    )
    keys = [f"{uid}_{row}_0" for row, uid in enumerate(uids)]
    found = compute_advantage_for_multi_trajectories(
        data, keys, adv_estimator=config.algorithm.adv_estimator, config=config.algorithm
    )
    torch.testing.assert_close(found.batch["advantages"], advantages(config, decisions))


def test_the_overrides_are_all_in_verls_configuration() -> None:
    for slug, parameters in CASES:
        config, actor = configured(slug, parameters)
        assert config.algorithm.adv_estimator == actor.policy_loss.loss_mode == PREFIX + slug
        assert dict(actor.policy_loss.ascent) == parameters
        assert all("=" in line for line in overrides(slug, parameters))


def test_a_random_choice_follows_the_rows() -> None:
    """Whatever their order, their padding and their place in memory."""
    parameters = {"clip_fraction": 0.1, "covariance_low": 0.0, "covariance_high": 9.0}
    method = method_of("entropy_mechanism", parameters)
    evaluation, decisions = recorded(method, 2)
    config, actor = configured("entropy_mechanism", parameters)
    advantage = advantages(config, decisions)
    _, gradient, _ = update(actor, evaluation, decisions, advantage, ONE)
    dropped = (gradient["log_prob"] == 0) & decisions.mask & (advantage != 0)
    assert bool(dropped.any())
    _, shuffled, _ = update(actor, evaluation, decisions, advantage, [[[3, 0, 7, 1, 6, 2, 5, 4]]])
    torch.testing.assert_close(shuffled["log_prob"], gradient["log_prob"], rtol=0, atol=1e-12)
    old, mask = decisions.old_log_prob, decisions.mask
    wide = [torch.nn.functional.pad(column, (0, 3)) for column in (old, mask)]
    assert torch.equal(identity(*wide), identity(old, mask))
    assert len(set(identity(old, mask).tolist())) == ROWS
    assert not torch.equal(identity(old + 0.01, mask), identity(old, mask))
