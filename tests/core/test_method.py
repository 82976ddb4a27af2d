"""The four-line contract on compositions of every core part, in float64; each method file has its own pass too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.combinators import Blend, Normalised, OptimalBaseline
from ascent.core.critics import ValueLoss
from ascent.core.decisions import Columns, Decisions, MissingColumn
from ascent.core.divergences import Divergence, Entropy
from ascent.core.evaluation import Evaluation
from ascent.core.filters import Overlong
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState, Part, State, walk
from ascent.core.plan import Linear
from ascent.core.random import generator
from ascent.core.returns import GAE, LambdaReturn, RewardToGo, Score
from ascent.core.selectors import Band, Not, Top
from ascent.core.surrogates import CISPO, ClippedRatio, DecoupledClip, ImportanceWeighted, LogProb, Outcome, Ratio
from ascent.core.term import Term


@dataclass(frozen=True)
class MedianBound(Part):
    """A bound that only the whole update knows: the median size of the log-ratio."""

    needs = frozenset({"old_log_prob", "log_prob"})
    prepares = frozenset({"log_prob"})

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        assert evaluation is not None
        sizes = (evaluation.log_prob - decisions.old_log_prob).abs()[decisions.mask]
        median = sizes.median() if len(sizes) else sizes.new_zeros(())
        return {"bound": median.expand(len(decisions))}


@dataclass(frozen=True)
class Bounded(Part):
    """The clipped ratio with the bound of `MedianBound`."""

    bound: MedianBound = MedianBound()
    clip: ClippedRatio = ClippedRatio("bound", "bound")

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return self.clip(evaluation, decisions)


METHODS: Mapping[str, Method] = {
    "critic": Method(
        "critic",
        {
            "policy": Term(ClippedRatio(0.1, 0.2, dual=2.0)),
            "value": Term(ValueLoss(0.2, "huber"), 0.5),
            "entropy": Term(Entropy(), 0.01),
        },
        advantage=GAE(),
        value_target=LambdaReturn(),
        normalise=Normalised(),
    ),
    "groups": Method(
        "groups",
        {
            "policy": Term(ClippedRatio(0.1, 0.1, ratio="sequence"), reduction="seq-mean-token-mean"),
            "kl": Term(Divergence("k3"), 0.1, reduction="seq-mean-token-sum-norm"),
            "further": Term(CISPO(0.1, 0.1, ratio="sequence-token"), reduction="seq-mean-token-sum"),
        },
        advantage=Centre(of=Score(Overlong(5, 3)), scale="group", singleton="keep"),
    ),
    "weights": Method(
        "weights",
        {
            "decoupled": Term(DecoupledClip(cap=1.1, mask_above=1.2)),
            "truncated": Term(ImportanceWeighted(cap=1.0, level="sequence"), reduction="token-sum"),
            "plain": Term(Ratio(), keep=Top(fraction=0.5, scope="row"), count="kept"),
        },
        advantage=Blend(OptimalBaseline(), RewardToGo(0.9), 0.3),
    ),
    "selected": Method(
        "selected",
        {
            "high": Term(LogProb(), keep=Top(fraction=0.3)),
            "low": Term(LogProb(), 0.5, keep=Not(Band(low=0.8, high=1.5, fraction=0.2)), count="kept"),
            "random": Term(Outcome(), keep=Top(fraction=0.3, order="random")),
        },
        advantage=Centre(by="batch", leave_one_out=True),
    ),
    "prepared": Method(
        "prepared",
        {"policy": Term(Bounded()), "row": Term(Divergence("exact", "old"), unit="row")},
        advantage=Centre(by=("group", "turn"), unit="turn"),
    ),
}
each = pytest.mark.parametrize("name", METHODS)
ROWS, COLUMNS = 8, 6


def case(name: str) -> tuple[dict[str, Tensor], set[str], Decisions]:
    """Detached evaluated columns, which of them are probes, and uncredited decisions with keys."""
    method = METHODS[name]
    evaluation, decisions = method.example(ROWS, COLUMNS, 3, torch.float64)
    columns = {column: evaluation.column(column).detach() for column in evaluation}
    return columns, set(evaluation.probes), decisions.replace(key=torch.arange(ROWS) * 7919)


def evaluate(columns: Mapping[str, Tensor], probes: set[str]) -> Evaluation:
    own = {name: tensor for name, tensor in columns.items() if name not in probes}
    return Evaluation(**own, probes={name: columns[name] for name in probes})


def solve(
    method: Method, columns: Mapping[str, Tensor], probes: set[str], decisions: Decisions
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The loss, its metrics and the gradient of each evaluated column."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in columns.items()}
    loss, metrics = method.loss(evaluate(leaves, probes), decisions)
    loss.backward()
    return loss.detach(), metrics, {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in leaves.items()}


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)


@each
@pytest.mark.parametrize("parts", [[[0], [1], [2], [3], [4], [5], [6], [7]], [[5, 0, 3], [7, 6, 1, 2, 4]]])
def test_micro_batches_add_up_to_the_update(name: str, parts: list[list[int]]) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    loss, metrics, gradients = solve(method, columns, probes, decisions)
    assert any(bool(gradient.any()) for gradient in gradients.values())
    prepared = method.prepare(method.credit(decisions), evaluate(columns, probes))
    summed = {column: torch.zeros_like(tensor) for column, tensor in columns.items()}
    total = torch.zeros_like(loss)
    totals = {metric: torch.zeros_like(number) for metric, number in metrics.items()}
    for part in parts:
        rows = torch.tensor(part)
        split = {column: tensor[rows] for column, tensor in columns.items()}
        piece, pieces, slopes = solve(method, split, probes, prepared.rows(rows))
        total = total + piece
        for column, slope in slopes.items():
            summed[column][rows] = slope
        for metric, number in pieces.items():
            totals[metric] = totals[metric] + number
    close(total, loss)
    for column, gradient in gradients.items():
        close(summed[column], gradient)
    for metric, number in metrics.items():
        torch.testing.assert_close(totals[metric], number, rtol=0, atol=1e-6)


@each
def test_row_order_does_not_matter(name: str) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    loss, _, gradients = solve(method, columns, probes, decisions)
    order = torch.randperm(ROWS, generator=generator("order"))
    moved = {column: tensor[order] for column, tensor in columns.items()}
    other, _, slopes = solve(method, moved, probes, decisions.rows(order))
    close(other, loss)
    for column, gradient in gradients.items():
        close(slopes[column], gradient[order])


@each
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_padding_does_not_matter_whatever_it_holds(name: str, poison: float) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    loss, _, gradients = solve(method, columns, probes, decisions)

    def wider(tensor: Tensor, fill: float) -> Tensor:
        """Garbage where nothing was decided, and three more such columns: two inside, one at the end."""
        if tensor.shape[:2] != (ROWS, COLUMNS):
            return tensor
        if not tensor.is_floating_point():
            filler = torch.zeros_like(tensor[:, :1])
        else:
            tensor = torch.where(decisions.mask, tensor, fill)
            filler = torch.full_like(tensor[:, :1], fill)
        return torch.cat((tensor[:, :2], filler, filler, tensor[:, 2:], filler), dim=1)

    flat = {column: wider(tensor, poison) for column, tensor in decisions.to_tensors().items()}
    poisoned = {column: wider(tensor, poison) for column, tensor in columns.items()}
    # The default horizon is the longest row's count of decisions, which padding leaves alone.
    other, metrics, slopes = solve(method, poisoned, probes, Decisions.from_tensors(flat))
    close(other, loss)
    assert all(bool(number.isfinite()) for number in metrics.values())
    for column, gradient in gradients.items():
        close(slopes[column], wider(torch.where(decisions.mask, gradient, 0.0), 0.0))
        padding = ~wider(decisions.mask, 0.0)
        assert bool((slopes[column][padding] == 0).all())


@each
def test_an_empty_mask_gives_loss_zero(name: str) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    empty = decisions.replace(mask=torch.zeros_like(decisions.mask))
    loss, metrics, gradients = solve(method, {n: t * torch.nan for n, t in columns.items()}, probes, empty)
    assert float(loss) == 0.0 and all(float(number) == 0.0 for number in metrics.values())
    assert not any(bool(gradient.any()) for gradient in gradients.values())


@each
def test_credit_and_loss_leave_no_trace(name: str) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    before = {column: tensor.clone() for column, tensor in decisions.to_tensors().items()}
    first, second = method.credit(decisions), method.credit(decisions)
    assert torch.equal(first.advantage, second.advantage)
    assert torch.equal(method.credit(first).advantage, first.advantage)
    runs = [solve(method, columns, probes, decisions) for _ in range(2)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert all(torch.equal(runs[0][2][column], runs[1][2][column]) for column in columns)
    after = decisions.to_tensors()
    assert set(after) == set(before) and all(torch.equal(after[column], before[column]) for column in before)


@each
def test_the_loss_credits_what_is_uncredited(name: str) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    close(solve(method, columns, probes, decisions)[0], solve(method, columns, probes, method.credit(decisions))[0])


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_are_valid_in_both_precisions(name: str, dtype: torch.dtype) -> None:
    evaluation, decisions = METHODS[name].example(4, 3, 1, dtype)
    loss, metrics = METHODS[name].loss(evaluation, decisions)
    loss.backward()
    assert loss.dtype == dtype and bool(loss.isfinite()) and loss.dim() == 0
    assert not any(number.requires_grad for number in metrics.values())


@pytest.mark.parametrize("name", ["critic", "weights", "selected"])
def test_dropped_decisions_get_exactly_zero_gradient(name: str) -> None:
    method, (columns, probes, decisions) = METHODS[name], case(name)
    for term_name, term in method.losses.items():
        alone = method.replace(losses={term_name: term}, normalise=None)
        prepared = alone.prepare(alone.credit(decisions), evaluate(columns, probes))
        kept = prepared.extras[f"weight:{term_name}"] != 0
        _, _, gradients = solve(alone, columns, probes, prepared)
        assert bool((kept == decisions.mask).all()) == (term.keep is None)
        assert not any(bool(gradient[~kept].any()) for gradient in gradients.values())


def test_the_kept_are_chosen_on_the_whole_update_not_on_its_parts() -> None:
    method, (columns, probes, decisions) = METHODS["selected"], case("selected")
    prepared = method.prepare(method.credit(decisions), evaluate(columns, probes))
    wanted = Top(fraction=0.3)(Evaluation(entropy=columns["entropy"]), decisions)
    assert torch.equal(prepared.extras["weight:high"] != 0, wanted)
    assert {"entropy"} == method.prepares


def test_absent_log_probs_default_to_the_present_policy() -> None:
    method, (columns, probes, decisions) = METHODS["weights"], case("weights")
    bare = decisions.replace(old_log_prob=None, behaviour_log_prob=None)
    log_prob = columns["log_prob"]
    full = decisions.replace(old_log_prob=log_prob, behaviour_log_prob=log_prob)
    close(solve(method, columns, probes, bare)[0], solve(method, columns, probes, full)[0])
    half = decisions.replace(behaviour_log_prob=None)
    full = decisions.replace(behaviour_log_prob=decisions.old_log_prob)
    close(solve(method, columns, probes, half)[0], solve(method, columns, probes, full)[0])


def test_a_given_advantage_is_kept_when_only_the_target_is_missing() -> None:
    method, (columns, probes, decisions) = METHODS["critic"], case("critic")
    given = decisions.replace(advantage=torch.arange(48.0, dtype=torch.float64).reshape(ROWS, COLUMNS))
    target = method.credit(decisions).value_target
    close(
        solve(method, columns, probes, given)[0],
        solve(method, columns, probes, given.replace(value_target=target))[0],
    )


def test_normalised_advantages_do_not_accumulate_over_passes() -> None:
    method, (_, _, decisions) = METHODS["critic"], case("critic")
    credited = method.credit(decisions)
    prepared = method.prepare(credited, None)
    assert torch.equal(prepared.advantage, Normalised()(credited)) and not torch.equal(
        prepared.advantage, credited.advantage
    )
    half = credited.rows(slice(0, 4))
    assert torch.equal(method.prepare(half, None).advantage, Normalised()(half))


def test_missing_columns_name_themselves_and_the_method() -> None:
    method, (columns, probes, decisions) = METHODS["groups"], case("groups")
    with pytest.raises(MissingColumn, match="method 'groups' needs column 'group'") as caught:
        method.credit(decisions.replace(group=None))
    assert caught.value.name == "group"
    credited = method.credit(decisions.replace(reference_log_prob=None))
    with pytest.raises(MissingColumn, match="method 'groups' needs column 'reference_log_prob'"):
        method.loss(evaluate(columns, probes), credited)


def test_replace_and_with_terms_copy() -> None:
    method = METHODS["critic"]
    changed = method.replace(advantage=Centre())
    assert changed.advantage == Centre() and isinstance(method.advantage, GAE)
    assert "group" in changed.needs and "group" not in method.needs
    more = method.with_terms(kl=Term(Divergence()), entropy=None)
    assert list(more.losses) == ["policy", "value", "kl"] and list(method.losses) == ["policy", "value", "entropy"]
    assert "reference_log_prob" in more.needs and "entropy" not in more.needs
    with pytest.raises(TypeError, match=r"Method has no part 'advantages'; .* Did you mean 'advantage'\?"):
        method.replace(advantages=Centre())
    with pytest.raises(ValueError, match="method 'critic' has no losses"):
        method.replace(losses={})


def test_needs_are_those_of_every_part() -> None:
    method = METHODS["selected"]
    assert method.needs == {"mask", "log_prob", "advantage", "outcome", "entropy", "reward"}
    assert method.evaluates == {"log_prob", "outcome", "entropy"}
    assert METHODS["prepared"].evaluates == {"log_prob", "probe:kl_old"}
    paths = dict(walk("losses", method.losses))
    assert set(paths) == {
        "losses.high.value", "losses.high.keep", "losses.low.value", "losses.low.keep", "losses.low.keep.selector",
        "losses.random.value", "losses.random.keep",
    }  # fmt: skip
    assert method.keep_together == "row"


def test_a_schedule_follows_the_clock() -> None:
    method = METHODS["critic"].replace(losses={"policy": Term(Ratio(), Linear(1.0, 0.0))}, normalise=None)
    columns, probes, decisions = case("critic")
    credited = method.credit(decisions)
    whole = method.loss(evaluate(columns, probes), credited)[0]
    state = method.start()
    later = MethodState(state.parts, Clock(step=3, progress=0.75))
    close(method.loss(evaluate(columns, probes), credited, later)[0], 0.25 * whole)


@dataclass(frozen=True)
class RunningBaseline(Part):
    """Rewards minus a baseline that moves after each update: state lives outside the part."""

    needs = frozenset({"reward"})

    def start(self) -> State:
        return {"baseline": torch.tensor(0.5, dtype=torch.float64)}

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        return {"baseline": state["baseline"].expand(len(decisions))}

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        return {"baseline": state["baseline"] + 1.0}

    def __call__(self, decisions: Decisions) -> Tensor:
        return decisions.reward - decisions.per_decision("baseline", "RunningBaseline")


def test_state_is_passed_never_kept() -> None:
    method = Method("running", {"policy": Term(LogProb())}, advantage=RunningBaseline())
    _, decisions = method.example(4, 3, 0, torch.float64)
    state = method.start()
    moved = method.after(decisions, {}, state)
    first = method.credit(decisions, state).advantage
    close(method.credit(decisions, moved).advantage, first - 1.0)
    assert torch.equal(method.credit(decisions, state).advantage, first)
    assert torch.equal(method.credit(decisions).advantage, first)
    assert float(state.parts["advantage"]["baseline"]) == 0.5


def test_rejected_decisions_shape_the_baseline_but_are_masked() -> None:
    method = Method(
        "rejecting", {"policy": Term(LogProb())}, advantage=Centre(by="batch"), reject=lambda batch: batch.reward > 1.0
    )
    decisions = Decisions(
        mask=torch.ones(3, 1, dtype=torch.bool), reward=torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    )
    credited = method.credit(decisions)
    assert credited.advantage.tolist() == [[-2.0], [-1.0], [3.0]]
    assert credited.mask.tolist() == [[True], [True], [False]]


def test_examples_refuse_no_rows() -> None:
    with pytest.raises(ValueError, match="rows and columns must be >= 1; got rows=0, columns=6"):
        METHODS["critic"].example(0, 6)
    first, second = (METHODS["critic"].example(4, 3, seed)[1].reward for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, METHODS["critic"].example(4, 3, 0)[1].reward)


def test_a_dropped_decision_may_have_no_finite_value() -> None:
    method = Method(
        "guarded",
        {
            "policy": Term(
                lambda evaluation, decisions: evaluation.log_prob + decisions.extras["offset"],
                keep=lambda evaluation, decisions: decisions.extras["offset"].isfinite(),
            )
        },
    )
    offset = torch.tensor([[1.0, torch.nan, torch.inf]], dtype=torch.float64)
    decisions = Decisions(mask=torch.ones(1, 3, dtype=torch.bool), extras={"offset": offset})
    log_prob = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    loss, _ = method.loss(Evaluation(log_prob=log_prob), decisions)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1 / 3)
    assert log_prob.grad is not None and log_prob.grad[0].tolist() == pytest.approx([1 / 3, 0.0, 0.0])
