"""VaGraM: a dynamics model that is trained where the value function is steep, inside model-based SAC.

With e = f(s, a) - s' and g_v = grad_s V_v at the OBSERVED next state s', V_v(s) = Q_v(s, a*), a* = the actor's mean:

    mse         sum_k e_k^2                         taylor   mean_v (g_v . e)^2
    nll         Gaussian, with learned variance     vagram   mean_v sum_k (g_vk e_k)^2
    itervaml    mean_v (V_v(f(s, a)) - V_v(s'))^2   value    mean_v |V_v(s')| / mean |V_v| * sum_k e_k^2

    g <- g min(1, q / |g|),  q: the 95% quantile of |g| in the batch
    J(f) = mean over members and transitions of [ loss of the state + (r^ - r)^2 + warm-up * mean squared error ]

Taylor is zero on the whole plane g . e = 0, so predictions may leave the data; its diagonal is not, and n times it is
an upper bound. Voelcker et al., ICLR 2022, arXiv 2204.01464; the loop is MBPO's (Janner et al. 2019): SAC on
transitions of which most are imagined by the ensemble. The released code adds the gradients of the V value functions
up instead of keeping them apart, and clips only above 100,000 (`variant="release"`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core import dynamics
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part, State
from ascent.core.plan import Adam
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.term import Term
from ascent.methods.sac import Form, sac

Loss = Literal["vagram", "mse", "nll", "itervaml", "taylor", "value"]
LOSSES = ("vagram", "mse", "nll", "itervaml", "taylor", "value")
Ramp = tuple[float, float, float, float]
"""(first epoch, last epoch, number until the first, number from the last on), linear between."""
EXAMPLE = (2, 2, 4)
"""Members, state numbers and value functions of made-up inputs."""


@dataclass(frozen=True)
class ModelLoss(Part, ABC):
    """Mean over the members, each on its bootstrap, of `losses(...)` [N, T, E].

    Reads `outputs` [N, T, E * size]: change of the state (n), reward, and, of a Gaussian model, log variances (n);
    `change` [N, T, n], `reward`, and `bootstrap` [N, T, E], how often a transition is in each member's data.

    Attributes:
        gaussian: whether the model says log variances.
    """

    gaussian: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"outputs", "change", "reward", "bootstrap"})

    @property
    def outputs_size(self) -> int:
        return EXAMPLE[0] * self.size(EXAMPLE[1])

    def size(self, state: int) -> int:
        """Outputs of one member for a state of so many numbers."""
        return 2 * state + 1 if self.gaussian else state + 1

    def said(self, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, Tensor, Tensor]:
        """Errors of the state [N, T, E, n] and of the reward [N, T, E], and the rest that the model says."""
        change = decisions.column("change", "ModelLoss")
        state = change.shape[-1]
        outputs = dynamics.members(evaluation.outputs, self.size(state))
        errors = outputs[..., :state] - change.unsqueeze(-2)
        return errors, outputs[..., state] - decisions.reward.unsqueeze(-1), outputs[..., state + 1 :]

    @abstractmethod
    def losses(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        """[N, T, E], of each member."""

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return (decisions.column("bootstrap", "ModelLoss") * self.losses(evaluation, decisions)).mean(-1)

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(*decisions.mask.shape, *shape, generator=generator, dtype=torch.float64)
            return drawn.to(decisions.reward.dtype)

        count, state, values = EXAMPLE
        return {
            "change": normal(state),
            "bootstrap": normal(count).abs().round(),
            "state_value": normal(values),
            "value_slope": normal(values, state),
            "warm_up": normal().abs(),
        }


@dataclass(frozen=True)
class StateLoss(ModelLoss):
    """What an error of the predicted state costs.

    Attributes:
        kind: one of `LOSSES`.
        quantile: of the norm of the slopes, to which they are clipped, in (0, 1]; 1 does not clip.
        accumulate: sum the slopes of the value functions up, as the released code does.
        mask_terminal: the slope at a terminal state is 0, as its value.
        floor: added to the squared slopes of "vagram", so that no direction is free, >= 0.
        mean: over the numbers of a state instead of their sum, as the released code does.

    Reads `value_slope` [N, T, V, n] ("vagram", "taylor"), `state_value` [N, T, V] ("itervaml", "value"), and the
    probe `predicted_value` [N, T, E * V] ("itervaml"), through which the gradient flows.
    """

    kind: Loss = "vagram"
    quantile: float = 0.95
    accumulate: bool = False
    mask_terminal: bool = False
    floor: float = 0.0
    mean: bool = False

    @property
    def needs(self) -> frozenset[str]:
        own = {
            "vagram": {"value_slope"},
            "taylor": {"value_slope"},
            "itervaml": {"state_value", "probe:predicted_value"},
            "value": {"state_value"},
        }
        terminal = {"terminated"} if self.mask_terminal else set()
        return super().needs | own.get(self.kind, set()) | terminal

    @property
    def critics(self) -> int:
        return EXAMPLE[0] * EXAMPLE[2] if self.kind == "itervaml" else 0

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        """Clipped slopes, or the weights of value-weighted errors: what a whole batch decides."""
        if self.kind in ("vagram", "taylor"):
            slope = decisions.column("value_slope", "StateLoss")
            if self.mask_terminal:
                slope = torch.where(decisions.terminated[..., None, None], 0.0, slope)
            slope = dynamics.cumulative(slope) if self.accumulate else slope
            return {"slope": dynamics.clipped(slope, decisions.mask, self.quantile)}
        if self.kind == "value":
            size = decisions.column("state_value", "StateLoss").abs()
            mean = size[decisions.mask].sum(0) / decisions.mask.sum().clamp(min=1)
            return {"value_weight": (size / mean.clamp(min=1e-12)).mean(-1)}
        return {}

    def losses(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        error, _, rest = self.said(evaluation, decisions)
        found = self._losses(error, rest, evaluation, decisions)
        return found / error.shape[-1] if self.mean else found

    def _losses(self, error: Tensor, rest: Tensor, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        if self.kind == "nll":
            return dynamics.gaussian(error, rest)
        if self.kind == "itervaml":
            observed = decisions.column("state_value", "StateLoss")
            predicted = dynamics.members(evaluation.column("predicted_value", "StateLoss"), observed.shape[-1])
            return dynamics.value_difference(predicted, observed)
        if self.kind == "value":
            return decisions.column("value_weight", "StateLoss").unsqueeze(-1) * dynamics.squared(error)
        if self.kind == "mse":
            return dynamics.squared(error)
        slope = decisions.column("slope", "StateLoss")
        if self.kind == "taylor":
            return dynamics.expanded(error, slope)
        return dynamics.weighted(error, slope) + self.floor * dynamics.squared(error)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """`error`: squared one-step error; `slope_norm`, and `clipped`, the share of slopes that were cut."""
        found = {"error": dynamics.squared(self.said(evaluation, decisions)[0]).mean(-1)}
        if self.kind in ("vagram", "taylor"):
            norm = decisions.column("slope", "StateLoss").norm(dim=-1)
            before = decisions.column("value_slope", "StateLoss")
            before = (dynamics.cumulative(before) if self.accumulate else before).norm(dim=-1)
            found |= {"slope_norm": norm.mean(-1), "clipped": (norm < before * (1 - 1e-6)).to(norm.dtype).mean(-1)}
        return found


@dataclass(frozen=True)
class RewardLoss(ModelLoss):
    """`(r^ - r)^2`, which no slope weighs."""

    def losses(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return self.said(evaluation, decisions)[1].square()


@dataclass(frozen=True)
class WarmUp(ModelLoss):
    """The mean squared error of state and reward times the column `warm_up` [N, T]: while the critics know nothing."""

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"warm_up"}

    def losses(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        error, reward, _ = self.said(evaluation, decisions)
        mean = (dynamics.squared(error) + reward.square()) / (error.shape[-1] + 1)
        return decisions.column("warm_up", "WarmUp").unsqueeze(-1) * mean


def check_ramp(name: str, ramp: object, interval: str) -> None:
    """Raise ValueError unless `ramp` is (first epoch, last epoch, start, end)."""
    good = isinstance(ramp, tuple | list) and len(ramp) == 4
    if not good:
        raise ValueError(f"{name} must be four numbers: first epoch, last epoch, start, end; got {ramp!r}.")
    assert isinstance(ramp, tuple | list)
    within(f"{name}'s first epoch", ramp[0], "[0, inf)", "Epochs count from 0")
    if ramp[1] < ramp[0]:
        raise ValueError(f"{name}'s last epoch must be >= its first; got {ramp!r}.")
    for number in ramp[2:]:
        within(name, number, interval, "See the method's page")


@register(
    "vagram",
    title="Value gradient weighted model-based reinforcement learning",
    paper="Voelcker et al., ICLR (spotlight)",
    year=2022,
    url="https://arxiv.org/abs/2204.01464",
    family="control",
)
def vagram(
    loss: Loss = "vagram",
    variant: Literal["paper", "release"] = "paper",
    clip_quantile: float = 0.95,
    values: Literal["all", "targets"] = "all",
    mask_terminal: bool = False,
    floor: float = 0.0,
    warm_up: int = 1000,
    members: int = 7,
    elites: int = 5,
    model_hidden: tuple[int, ...] = (200, 200, 200, 200),
    model_learning_rate: float = 1e-3,
    model_decay: float = 5e-5,
    model_batch: int = 256,
    model_every: int = 250,
    held_out: float = 0.2,
    patience: int = 10,
    improvement: float = 0.01,
    model_epochs: int = 200,
    rollouts: int = 400,
    horizon: Ramp = (0, 0, 1, 1),
    share: Ramp = (0, 20, 0.0, 0.95),
    epoch: int = 1000,
    retain: int = 4,
    discount: float = 0.99,
    critics: int = 2,
    target_rate: float = 0.005,
    target_every: int = 1,
    temperature: float = 0.1,
    learn_temperature: bool = True,
    target_entropy: float | None = None,
    temperature_form: Form = "temperature",
    batch: int = 256,
    capacity: int = 1_000_000,
    start: int = 1000,
    updates: int = 20,
    learning_rate: float = 3e-4,
    critic_learning_rate: float = 3e-4,
    temperature_learning_rate: float = 3e-4,
) -> Method:
    """Model-based soft actor-critic whose model is fitted by one of five losses, or by likelihood.

    Args:
        loss: of the predicted state: "vagram", "mse", "nll", "itervaml", "taylor" or "value".
        variant: "paper", or "release": accumulated slopes, no clip, mean over the numbers of a state.
        clip_quantile: to which the norms of the slopes of a batch are clipped, in (0, 1]; 1 does not clip.
        values: whose slopes: of "all" critics and their targets, or of the "targets" only.
        mask_terminal: whether the slope at a terminal state is 0.
        floor: added to the squared slopes of "vagram", >= 0; 0 for every other loss.
        warm_up: environment steps after the uniform ones in which plain squared errors are added, >= 0.
        members: E models of the ensemble, >= 1.
        elites: of least held-out loss, which imagine, in 1..members.
        model_hidden: widths of a member's hidden layers.
        model_learning_rate: of the models' Adam, > 0.
        model_decay: its weight decay, >= 0.
        model_batch: transitions per update of the models, >= 1.
        model_every: environment steps between two fits, >= 1.
        held_out: share of the transitions that only judge, in (0, 1).
        patience: epochs without improvement after which a fit ends, >= 1.
        improvement: of the held-out loss of any member, relative, that counts, >= 0.
        model_epochs: most epochs of a fit, >= 1.
        rollouts: imagined from each environment step, >= 1; a fit is followed by `model_every` times as many.
        horizon: steps of an imagined rollout, a ramp over epochs.
        share: probability that an update of SAC draws imagined transitions, a ramp over epochs.
        epoch: environment steps, >= 1, in which ramps count.
        retain: the imagined memory holds the rollouts of so many fits, >= 1.
        discount: gamma, in [0, 1].
        critics: K networks, of which the smallest value counts, >= 1.
        target_rate: share of the way that the target critics move to the critics, in (0, 1].
        target_every: updates between two such moves, >= 1.
        temperature: alpha at the start, > 0.
        learn_temperature: whether alpha is learned.
        target_entropy: nats that the learned temperature keeps; None is minus the numbers of an action.
        temperature_form: what stands before the bracket of the temperature's loss: "temperature" or its "log".
        batch: transitions per update of SAC, >= 1.
        capacity: transitions that the real memory holds, >= batch.
        start: environment steps of uniform actions before the first fit, >= batch.
        updates: of SAC per environment step, >= 1.
        learning_rate: of the policy's Adam, > 0.
        critic_learning_rate: of the critics' Adam, > 0.
        temperature_learning_rate: of the temperature's Adam, > 0.
    """
    one_of("loss", loss, LOSSES)
    one_of("variant", variant, ("paper", "release"))
    within("clip_quantile", clip_quantile, "(0, 1]", "Use 0.95; 1 does not clip")
    one_of("values", values, ("all", "targets"))
    one_of("mask_terminal", mask_terminal, (True, False))
    within("floor", floor, "[0, inf)", "Use 0")
    if floor and loss != "vagram":
        raise ValueError(f"floor must be 0 with loss={loss!r}, which has no weights that it could lift; got {floor!r}.")
    whole("warm_up", warm_up, 0, "Use 1000")
    whole("members", members, 1, "Use 7")
    whole("elites", elites, 1, "Use 5")
    if elites > members:
        raise ValueError(f"elites must be at most members; got elites={elites!r}, members={members!r}. Use fewer.")
    if not model_hidden or any(not isinstance(width, int) or width < 1 for width in model_hidden):
        raise ValueError(f"model_hidden must be one or more widths >= 1; got {model_hidden!r}.")
    within("model_learning_rate", model_learning_rate, "(0, inf)", "Use 1e-3")
    within("model_decay", model_decay, "[0, inf)", "Use 5e-5")
    for name, number in {
        "model_batch": model_batch,
        "model_every": model_every,
        "patience": patience,
        "model_epochs": model_epochs,
        "rollouts": rollouts,
        "epoch": epoch,
        "retain": retain,
    }.items():
        whole(name, number, 1, "See the method's page")
    within("held_out", held_out, "(0, 1)", "Use 0.2")
    within("improvement", improvement, "[0, inf)", "Use 0.01")
    check_ramp("horizon", horizon, "[1, inf)")
    check_ramp("share", share, "[0, 1]")
    base = sac(
        discount=discount,
        critics=critics,
        target_rate=target_rate,
        target_every=target_every,
        temperature=temperature,
        learn_temperature=learn_temperature,
        target_entropy=target_entropy,
        temperature_form=temperature_form,
        batch=batch,
        capacity=capacity,
        start=start,
        updates=updates,
        learning_rate=learning_rate,
        critic_learning_rate=critic_learning_rate,
        temperature_learning_rate=temperature_learning_rate,
    )
    gaussian, release = loss == "nll", variant == "release"
    state = StateLoss(gaussian, loss, 1.0 if release else clip_quantile, release, mask_terminal, floor, release)
    losses = {"state": Term(state), "reward": Term(RewardLoss(gaussian))}
    if warm_up:
        losses["warm_up"] = Term(WarmUp(gaussian))
    model = Method(
        slug="vagram_model",
        losses=losses,
        step=Adam(model_learning_rate, weight_decay=model_decay, max_gradient_norm=None),
    )
    return base.replace(slug="vagram", companions={**base.companions, "model": model})
