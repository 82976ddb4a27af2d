"""Rewards and credits made of other columns: `reward` is never overwritten, a shaped one feeds a credit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.part import Part
from ascent.core.returns import Source, named, read


@dataclass(frozen=True)
class Constant(Part):
    """The same number for every decision [N, T]: 1 makes a log-probability term supervised learning.

    Attributes:
        number: any finite number.
    """

    number: float = 1.0

    def __call__(self, decisions: Decisions) -> Tensor:
        floats = (name for name in ("reward", "old_log_prob", "behaviour_log_prob") if name in decisions)
        dtype = next((decisions.column(name).dtype for name in floats), torch.get_default_dtype())
        return torch.full(decisions.mask.shape, self.number, dtype=dtype, device=decisions.mask.device)


@dataclass(frozen=True)
class Penalised(Part):
    """Reward minus `coefficient` times the log-ratio to a frozen policy [N, T]: RLHF's KL in the reward.

        r'_t = r_t - beta * (log pi_old(a_t) - log pi_reference(a_t))

    The log-ratio (k1) is an unbiased estimate of the KL where the decisions are samples of `old`. Being in
    the reward it is credited to earlier decisions too, so its gradient is that of the sequence's KL.

    Attributes:
        coefficient: beta >= 0; at 0 neither log-prob is read.
        against: scorer whose `<against>_log_prob` is the frozen policy.
        reward: column or function of the decisions that is penalised.
    """

    coefficient: float = 0.0
    against: str = "reference"
    reward: Source = "reward"

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"coefficient must be >= 0; got {self.coefficient!r}. Use 0 for no penalty.")

    @property
    def needs(self) -> frozenset[str]:
        extra = {"old_log_prob", f"{self.against}_log_prob"} if self.coefficient else set()
        return named(self.reward) | extra

    def __call__(self, decisions: Decisions) -> Tensor:
        reward = read(self.reward, decisions, "Penalised")
        if not self.coefficient:
            return reward
        frozen = decisions.column(f"{self.against}_log_prob", "Penalised")
        log_ratio = decisions.column("old_log_prob", "Penalised") - frozen
        return torch.where(decisions.mask, reward - self.coefficient * log_ratio, 0.0)
