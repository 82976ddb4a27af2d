"""A recorded batch, given to verl through its own functions and to Ascent's own method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.random import generator
from ascent.plugins.verl import functions
from ascent.plugins.verl_feed import overrides

ROWS, COLUMNS, PROMPT = 8, 7, 3


FIXED = (f"data.max_response_length={COLUMNS}", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1")


@lru_cache(maxsize=256)
def composed(*arguments: str) -> tuple[Any, Any]:
    """verl's own ppo_trainer configuration with the overrides of a command line, and the actor's built from it."""
    from hydra import compose, initialize_config_module
    from verl.utils.config import omega_conf_to_dataclass

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[*FIXED, *arguments])
    return config, omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def configured(slug: str, parameters: Mapping[str, Any], *more: str) -> tuple[Any, Any]:
    """verl's configuration for a method, and the actor's built from it."""
    return composed(*overrides(slug, parameters), *more)


def recorded(method: Method, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Evaluation, Decisions]:
    """Rows of uneven length with holes where a tool spoke, groups of 4, and all columns that either side reads."""
    draw = generator(seed, "verl batch")

    def normal(spread: float) -> Tensor:
        return spread * torch.randn(ROWS, COLUMNS, generator=draw, dtype=torch.float64).to(dtype)

    lengths = torch.randint(2, COLUMNS + 1, (ROWS, 1), generator=draw)
    place = torch.arange(COLUMNS)
    mask = (place < lengths) & ~((place == 1) & (lengths > 3))
    ends = place == lengths - 1
    log_prob = -normal(1.0).abs() - 0.1
    old = log_prob + normal(0.3)
    decisions = Decisions(
        mask=mask,
        old_log_prob=old,
        behaviour_log_prob=old,
        reference_log_prob=log_prob + normal(0.4),
        reward=torch.where(ends, normal(1.0), 0.0),
        terminated=ends,
        truncated=torch.zeros_like(ends),
        group=torch.arange(ROWS) // 4,
        key=functions.identity(old, mask),
        extras={"budget": torch.full((ROWS,), COLUMNS)},
    )
    evaluation = Evaluation(
        log_prob=log_prob.clone().requires_grad_(), entropy=(normal(1.0).abs() + 0.2).requires_grad_()
    )
    return evaluation, decisions


def own(method: Method, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of Ascent's own update, and its gradients by evaluated column."""
    loss, _ = method.loss(evaluation, method.credit(decisions))
    return loss.detach(), gradients(loss, evaluation)


def gradients(loss: Tensor, evaluation: Evaluation) -> dict[str, Tensor]:
    """Gradients by evaluated column, 0 for columns that the loss does not touch."""
    leaves = {"log_prob": evaluation.log_prob, "entropy": evaluation.entropy}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


def advantages(config: Any, decisions: Decisions) -> Tensor:
    """What verl's trainer computes: the penalty in the reward where it is asked for, then the estimator."""
    from verl import DataProto
    from verl.trainer.ppo.core_algos import get_kl_controller
    from verl.trainer.ppo.ray_trainer import apply_kl_penalty, compute_advantage

    batch = {
        "token_level_scores": decisions.reward.clone(),
        "token_level_rewards": decisions.reward.clone(),
        "response_mask": decisions.mask.to(torch.int64),
        "old_log_probs": decisions.old_log_prob,
        "ref_log_prob": decisions.reference_log_prob,
    }
    uids = np.array([f"prompt-{number}" for number in decisions.group.tolist()], dtype=object)
    data = DataProto.from_dict(tensors=batch, non_tensors={"uid": uids})
    if config.algorithm.use_kl_in_reward:
        control = get_kl_controller(config.algorithm.kl_ctrl)
        data, _ = apply_kl_penalty(data, kl_ctrl=control, kl_penalty=config.algorithm.kl_penalty)
    data = compute_advantage(data, adv_estimator=config.algorithm.adv_estimator, config=config.algorithm)
    return data.batch["advantages"]


def nested(rows: Sequence[Tensor]) -> Tensor:
    """Rows of uneven length as verl keeps them."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def micro_batch(
    evaluation: Evaluation, decisions: Decisions, advantage: Tensor, rows: Sequence[int], **info: Any
) -> tuple[dict[str, Tensor], TensorDict]:
    """What verl's engine hands to `ppo_loss`: unpadded model outputs, and nested columns of the responses."""
    from verl.utils import tensordict_utils as tu

    lengths = {row: int(torch.nonzero(decisions.mask[row]).max()) + 1 for row in rows}

    def responses(column: Tensor) -> Tensor:
        return nested([column[row, : lengths[row]] for row in rows])

    def sequences(column: Tensor) -> Tensor:
        """Of whole sequences, one token ahead: prompt, response, and the prediction after the last token."""
        zeros = column.new_zeros(PROMPT - 1)
        return nested([torch.cat((zeros, column[row, : lengths[row]], column.new_zeros(1))) for row in rows])

    output = {"log_probs": sequences(evaluation.log_prob)}
    if "entropy" in evaluation:
        output["entropy"] = sequences(evaluation.entropy)
    columns = {
        "prompts": nested([torch.zeros(PROMPT, dtype=torch.int64) for _ in rows]),
        "responses": nested([torch.zeros(lengths[row], dtype=torch.int64) for row in rows]),
        "response_mask": responses(decisions.mask.to(torch.int64)),
        "old_log_probs": responses(decisions.old_log_prob),
        "advantages": responses(advantage),
        "ref_log_prob": responses(decisions.reference_log_prob),
    }
    if "rollout_is_weights" in decisions:
        columns["rollout_is_weights"] = responses(decisions.column("rollout_is_weights"))
    return output, tu.get_tensordict(columns, non_tensor_dict=info)


def update(
    actor: Any,
    evaluation: Evaluation,
    decisions: Decisions,
    advantage: Tensor,
    ranks: Sequence[Sequence[Sequence[int]]],
    entropy: bool = False,
) -> tuple[Tensor, dict[str, Tensor], list[dict[str, Any]]]:
    """The loss and gradients of one update through verl's `ppo_loss`, averaged over ranks as FSDP does.

    Args:
        ranks: rows of each micro-batch of each rank.
        entropy: whether the engine computes entropies, as verl does where `entropy_coeff` is not 0.
    """
    from verl.workers.utils.losses import ppo_loss

    info = {
        "dp_size": len(ranks),
        "batch_num_tokens": int(decisions.mask.sum()),
        "global_batch_size": len(decisions),
    }
    given = evaluation if entropy else Evaluation(log_prob=evaluation.log_prob)
    total, logged = [], []
    for parts in ranks:
        for rows in parts:
            output, data = micro_batch(given, decisions, advantage, rows, **info)
            loss, metrics = ppo_loss(config=actor, model_output=output, data=data)
            total.append(loss / len(ranks))
            logged.append(metrics)
    loss = torch.stack(total).sum()
    return loss.detach(), gradients(loss, evaluation), logged


def method_of(slug: str, parameters: Mapping[str, Any]) -> Method:
    """The method by name and parameters."""
    return ascent.method(slug, **parameters)
