"""SAC: soft actor-critic, off-policy learning of a policy that is paid for its entropy.

From replayed transitions (s, a, r, s') with fresh actions a~ ~ pi(.|s) and a' ~ pi(.|s') of the present policy:

    critics      y = r + gamma (min_k Q'_k(s', a') - alpha log pi(a'|s'))       J(Q_k) = E[1/2 (Q_k(s, a) - y)^2]
    policy       J(pi) = E[alpha log pi(a~|s) - min_k Q_k(s, a~)]               through a~ = tanh(mean + std * noise)
    temperature  J(alpha) = E[-alpha (log pi(a~|s) + H)]                        H: the entropy to keep
    targets      Q' <- Q' + rate (Q - Q')

Haarnoja et al. 2018, "Soft actor-critic", arXiv 1801.01290, and "Soft actor-critic algorithms and applications",
arXiv 1812.05905 (two critics, learned temperature). Departures: the first steps are uniform (as in the released code,
the paper is silent); truncated episodes bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.critics import ValueLoss, pooled
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part
from ascent.core.plan import Adam
from ascent.core.ranges import one_of, replay_sizes, whole, within
from ascent.core.registry import register
from ascent.core.returns import OneStep
from ascent.core.surrogates import Outcome
from ascent.core.term import Term

Form = Literal["temperature", "log"]


def _temperature(decisions: Decisions, generator: torch.Generator) -> Columns:
    return {"temperature": 0.1 + torch.rand(decisions.mask.shape, generator=generator, dtype=torch.float64)}


@dataclass(frozen=True)
class SoftValue(Part):
    """`min_k Q'_k(s', a') - alpha log pi(a'|s')` [N, T], or for each of K critics [N, T, K] with pool "none".

    Reads `next_value` [N, T] or [N, T, K], the target critics of the fresh next action, `next_log_prob` [N, T] of that
    action, and `temperature` [N, T].
    """

    pool: Literal["min", "mean", "none"] = "min"
    needs = frozenset({"next_value", "next_log_prob", "temperature"})

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        return {"temperature": _temperature(decisions, generator)["temperature"].to(decisions.next_value.dtype)}

    def __call__(self, decisions: Decisions) -> Tensor:
        value = pooled(decisions.next_value, self.pool)
        cost = decisions.column("temperature", "SoftValue") * decisions.column("next_log_prob", "SoftValue")
        return value - (cost if value.dim() == 2 else cost.unsqueeze(-1))


@dataclass(frozen=True)
class EntropyCost(Part):
    """`alpha log pi(a~|s)` [N, T] of the policy's fresh action: the probe `own_log_prob`, the column `temperature`."""

    needs = frozenset({"probe:own_log_prob", "temperature"})

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        return _temperature(decisions, generator)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        own = evaluation.column("own_log_prob", "EntropyCost")
        return decisions.column("temperature", "EntropyCost").to(own.dtype) * own

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        return {
            "entropy": -evaluation.column("own_log_prob", "EntropyCost"),
            "temperature": decisions.column("temperature", "EntropyCost"),
        }


@dataclass(frozen=True)
class TemperatureLoss(Part):
    """`-alpha (log pi(a~|s) + H)` [N, T]: alpha rises while the entropy is below H.

    Attributes:
        target_entropy: H in nats; None is minus the numbers of an action (1812.05905, appendix D).
        form: "temperature" as in the paper, or "log": log alpha in place of alpha, as in many released codes. Both
            gradients have the same sign; that of "log" does not fade with alpha.

    Reads the probe `temperature` (evaluated) and the column `own_log_prob` (recorded).
    """

    target_entropy: float | None = None
    form: Form = "temperature"
    needs = frozenset({"probe:temperature", "own_log_prob", "action"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        wanted = -float(decisions.action.shape[2:].numel()) if self.target_entropy is None else self.target_entropy
        temperature = evaluation.column("temperature", "TemperatureLoss")
        factor = temperature if self.form == "temperature" else temperature.clamp(min=1e-30).log()
        return -factor * (decisions.column("own_log_prob", "TemperatureLoss") + wanted)


@register(
    "sac",
    title="Soft actor-critic: off-policy maximum entropy deep reinforcement learning with a stochastic actor",
    paper="Haarnoja et al., ICML",
    year=2018,
    url="https://arxiv.org/abs/1801.01290",
    family="control",
    status="baseline",
)
def sac(
    discount: float = 0.99,
    critics: int = 2,
    target_rate: float = 0.005,
    target_every: int = 1,
    temperature: float = 1.0,
    learn_temperature: bool = True,
    target_entropy: float | None = None,
    temperature_form: Form = "temperature",
    batch: int = 256,
    capacity: int = 1_000_000,
    start: int = 1000,
    updates: int = 1,
    learning_rate: float = 3e-4,
    critic_learning_rate: float = 3e-4,
    temperature_learning_rate: float = 3e-4,
) -> Method:
    """Soft actor-critic with K critics and a learned temperature.

    Args:
        discount: gamma, in [0, 1].
        critics: K networks, of which the smallest value counts, >= 1.
        target_rate: share of the way that the target critics move to the critics, in (0, 1].
        target_every: updates between two such moves, >= 1.
        temperature: alpha at the start, > 0.
        learn_temperature: whether alpha is learned; otherwise it stays.
        target_entropy: nats that the learned temperature keeps; None is minus the numbers of an action.
        temperature_form: what stands before the bracket of the temperature's loss: "temperature" or its "log".
        batch: transitions per update, >= 1.
        capacity: transitions that the replay memory holds, >= batch.
        start: environment steps of uniform actions before the first update, >= batch.
        updates: per environment step, >= 1.
        learning_rate: of the policy's Adam, > 0.
        critic_learning_rate: of the critics' Adam, > 0.
        temperature_learning_rate: of the temperature's Adam, > 0.
    """
    within("discount", discount, "[0, 1]", "Use 0.99")
    whole("critics", critics, 1, "Use 2")
    within("target_rate", target_rate, "(0, 1]", "Use 0.005; 1 copies")
    whole("target_every", target_every, 1, "Use 1")
    within("temperature", temperature, "(0, inf)", "Use 1, or 0.2 where it is not learned")
    one_of("learn_temperature", learn_temperature, (True, False))
    if target_entropy is not None:
        within("target_entropy", target_entropy, "(-inf, inf)", "Use None for minus the numbers of an action")
    one_of("temperature_form", temperature_form, ("temperature", "log"))
    replay_sizes(batch, capacity, start, updates)
    rates = (learning_rate, critic_learning_rate, temperature_learning_rate)
    for name, rate in zip(("", "critic_", "temperature_"), rates, strict=True):
        within(f"{name}learning_rate", rate, "(0, inf)", "Use 3e-4")
    critic = Method(
        slug="sac_critic",
        value_target=OneStep(discount, SoftValue()),
        losses={"value": Term(ValueLoss())},
        step=Adam(critic_learning_rate, max_gradient_norm=None),
    )
    companions = {"critic": critic}
    if learn_temperature:
        companions["temperature"] = Method(
            slug="sac_temperature",
            losses={"temperature": Term(TemperatureLoss(target_entropy, temperature_form))},
            step=Adam(temperature_learning_rate, max_gradient_norm=None),
        )
    return Method(
        slug="sac",
        losses={"policy": Term(Outcome()), "entropy": Term(EntropyCost())},
        step=Adam(learning_rate, max_gradient_norm=None),
        companions=companions,
    )
