"""The two functions of a method that verl calls, and the configuration through which parameters reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from verl.trainer.ppo.core_algos import (
    ADV_ESTIMATOR_REGISTRY,
    POLICY_LOSS_REGISTRY,
    agg_loss,
    register_adv_est,
    register_policy_loss,
)
from verl.workers.config import PolicyLossConfig

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import mix
from ascent.core.reductions import last
from ascent.core.registry import cards
from ascent.core.returns import discounted_sum
from ascent.plugins.verl_feed import ACTOR, ALGORITHM, BUDGET, PREFIX, Reading, Refused, contradictions, reading


def plain(parameters: Any) -> dict[str, Any]:
    """Parameters of a method out of verl's configuration, as plain values."""
    if isinstance(parameters, DictConfig):
        parameters = OmegaConf.to_container(parameters, resolve=True)
    return dict(parameters or {})


@dataclass
class AscentPolicyLoss(PolicyLossConfig):
    """verl's configuration of the policy loss, with a method's parameters; its `_target_` is this class.

    verl builds it before Ray starts, so a method or parameter that cannot run is refused there.

    Attributes:
        ascent: parameters of the method, the same that `algorithm.ascent` gives to the estimator.
        estimator: `${algorithm.adv_estimator}`; must be the same method.
        per_micro_batch: methods that look at the whole update look at each micro-batch instead, as verl's own
            clip_cov and kl_cov do; the result then depends on how the update is split.
    """

    ascent: dict[str, Any] = field(default_factory=dict)
    estimator: str = ""
    per_micro_batch: bool = False

    def __post_init__(self) -> None:
        if not self.loss_mode.startswith(PREFIX):
            raise Refused(f"AscentPolicyLoss needs loss_mode={PREFIX}<method>; got {self.loss_mode!r}.")
        if self.estimator not in ("", self.loss_mode):
            raise Refused(
                f"adv_estimator is {self.estimator!r} but loss_mode is {self.loss_mode!r}; name the same method twice."
            )
        self.reading()

    def reading(self) -> Reading:
        """The method that it names."""
        return reading(self.loss_mode.removeprefix(PREFIX), plain(self.ascent))


@dataclass(frozen=True)
class Estimator:
    """The advantage estimator of a method: called once a collection, on the driver."""

    slug: str

    def __call__(
        self,
        token_level_rewards: Tensor,
        response_mask: Tensor,
        config: Any = None,
        index: np.ndarray | None = None,
        **ignored: Any,
    ) -> tuple[Tensor, Tensor]:
        """Advantages and undiscounted rewards to go, both [N, T].

        Args:
            token_level_rewards: [N, T].
            response_mask: [N, T], 1 where the policy decided.
            config: verl's `algorithm`; `ascent` in it holds the parameters, `ascent_budget` the response budget.
            index: [N] uid of each row's prompt.
        """
        said = config if config is not None else {}
        found = reading(self.slug, plain(said.get("ascent")))
        if config is not None:
            _demand(found, said, ALGORITHM)
        decisions = self._decisions(token_level_rewards, response_mask.bool(), index, found, said)
        advantage = found.credit.credit(decisions).advantage
        returns = discounted_sum(decisions.reward, decisions.terminated, decisions.mask, 1.0)
        return torch.where(decisions.mask, advantage, 0.0), returns

    def _decisions(
        self, rewards: Tensor, mask: Tensor, index: np.ndarray | None, found: Reading, said: Any
    ) -> Decisions:
        decisions = Decisions(mask=mask, reward=_decided(rewards, mask))
        ends = last(decisions, "row")
        decisions = decisions.replace(terminated=ends, truncated=torch.zeros_like(ends))
        if index is not None:
            numbers = np.unique(np.asarray(index).astype(str), return_inverse=True)[1].reshape(-1)
            decisions = decisions.replace(group=torch.as_tensor(numbers, dtype=torch.int64, device=mask.device))
        if found.budgeted:
            budget = said.get("ascent_budget")
            if budget is None:
                raise Refused(f"{self.slug!r} reads the response budget; add +{ALGORITHM}.ascent_budget={BUDGET}.")
            decisions = decisions.with_extras({"budget": torch.full((len(mask),), int(budget), device=mask.device)})
        return decisions


@dataclass(frozen=True)
class PolicyLoss:
    """The policy loss of a method: called once a micro-batch, on the workers."""

    slug: str

    def __call__(
        self,
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a micro-batch, scaled so that micro-batches and ranks add up, and metrics as floats.

        Args:
            old_log_prob, log_prob, advantages, response_mask: [N, T].
            loss_agg_mode: verl's, which must be the method's reduction.
            config: verl's ActorConfig with an `AscentPolicyLoss` in it.
            rollout_is_weights: [N, T] of verl's rollout correction; they multiply each token's loss.
        """
        settings = config.policy_loss if config is not None else None
        if not isinstance(settings, AscentPolicyLoss):
            raise Refused(
                f"loss_mode={PREFIX}{self.slug} needs ascent.plugins.verl.AscentPolicyLoss as policy_loss._target_;"
                f" `python -m ascent.plugins.verl overrides {self.slug}` prints all that it needs."
            )
        found = settings.reading()
        _demand(found, config, ACTOR)
        info = dict(config.global_batch_info)
        self._whole(found, settings, info, len(log_prob))
        mask = response_mask.bool()
        decisions = Decisions(
            mask=mask,
            old_log_prob=old_log_prob,
            behaviour_log_prob=old_log_prob,
            advantage=advantages,
            key=identity(old_log_prob, mask),
        )
        evaluation = Evaluation(log_prob=log_prob)
        decisions = found.actor.prepare(decisions, evaluation)
        evaluation = evaluation.cleaned(mask)
        losses = []
        for name, term in found.actor.losses.items():
            value = torch.where(decisions.column(f"weight:{name}") != 0, term.value(evaluation, decisions), 0.0)
            if rollout_is_weights is not None:
                value = value * rollout_is_weights
            scale = info.get("loss_scale_factor") if term.horizon is None else term.horizon
            whole = agg_loss(value, mask, term.reduction, **{**info, "loss_scale_factor": scale})
            losses.append(term.coefficient * whole)  # type: ignore[operator]
        return sum(losses[1:], start=losses[0]), _metrics(found, evaluation, decisions)

    def _whole(self, found: Reading, settings: AscentPolicyLoss, info: Mapping[str, Any], rows: int) -> None:
        """Refuse a part of an update where the method needs all of it."""
        if not found.whole or settings.per_micro_batch:
            return
        total = info.get("global_batch_size")
        if (info.get("dp_size") or 1) > 1 or (total is not None and rows != total):
            raise Refused(
                f"{self.slug!r} chooses by the whole update ({total} rows on {info.get('dp_size')} ranks), and this "
                f"micro-batch has {rows} rows. Give one rank the update in one micro-batch, or accept a choice on each "
                f"micro-batch, as verl's own clip_cov makes it, by +{ACTOR}.policy_loss.per_micro_batch=true."
            )


def _decided(rewards: Tensor, mask: Tensor) -> Tensor:
    """[N, T] each reward on the decision that it follows: a score may stand on the tool output that ends a response."""
    rank = mask.cumsum(1).sub(1).clamp(min=0)
    return torch.zeros_like(rewards).scatter_add(1, rank, rewards).gather(1, rank) * mask


def identity(old_log_prob: Tensor, mask: Tensor) -> Tensor:
    """[N] a number for each row from what it is, so that random choices follow neither its place nor its padding."""
    bits = old_log_prob.detach().to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    return torch.where(mask, mix(bits, mask.cumsum(1)), 0).sum(1)


def _metrics(found: Reading, evaluation: Evaluation, decisions: Decisions) -> dict[str, float]:
    """Averages over the tokens of a micro-batch; verl averages them over micro-batches and ranks."""
    with torch.no_grad():
        mask = decisions.mask
        columns: dict[str, Tensor] = {"ppo_kl": decisions.old_log_prob - evaluation.log_prob}
        for part in found.actor.parts.values():
            columns |= part.metrics(evaluation.detach(), decisions)
        stacked = torch.stack([column.to(torch.float32).expand(mask.shape) for column in columns.values()])
        means = torch.where(mask, stacked, 0.0).sum((1, 2)) / mask.sum().clamp(min=1)
    named = {f"actor/{name}": number for name, number in zip(columns, means.tolist(), strict=True)}
    if "clip_fraction" in columns:
        named["actor/pg_clipfrac"] = named["actor/clip_fraction"]
    return named


def _demand(found: Reading, config: Any, root: str) -> None:
    """Refuse a configuration (the part of it under `root`) that contradicts the method."""
    wanted = {path: value for path, value in found.settings().items() if path.startswith(f"{root}.")}
    said: dict[str, Any] = {}
    for path in wanted:
        place = config
        for name in path.removeprefix(f"{root}.").split("."):
            place = place.get(name) if place is not None else None
        said[path] = place
    problems = contradictions(wanted, said)
    if problems:
        raise Refused(f"verl's configuration contradicts the method {found.method.slug!r}: {'; '.join(problems)}.")


def register() -> list[str]:
    """Register every language method; those that verl cannot feed say why when they are chosen. Returns the names.

    Raises:
        ValueError: something else has one of the names.
    """
    slugs = [item.slug for item in cards() if item.family in ("language", "both")]
    for slug in slugs:
        name = PREFIX + slug
        for kind, taken in (("estimator", ADV_ESTIMATOR_REGISTRY), ("policy loss", POLICY_LOSS_REGISTRY)):
            wanted = Estimator(slug) if kind == "estimator" else PolicyLoss(slug)
            if taken.get(name, wanted) != wanted:
                raise ValueError(f"the {kind} {name!r} is already registered: {taken[name]!r}.")
        register_adv_est(name)(Estimator(slug))
        register_policy_loss(name)(PolicyLoss(slug))
    return [PREFIX + slug for slug in slugs]
