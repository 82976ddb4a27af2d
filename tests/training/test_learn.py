"""One learning stage: micro-batches change nothing, walks stop early, broken numbers end the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.plan import SGD, Linear, Plan, Stop
from ascent.training import checkpoint
from ascent.training.annotate import log_prob_of
from ascent.training.learn import Diverged, Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh

ROWS, COLUMNS, ACTIONS = 12, 5, 4


class Softmax(nn.Module):
    """A linear softmax policy and a linear critic in float64; notes the rows of each forward."""

    splittable = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.actor = nn.Parameter(torch.randn(3, ACTIONS, dtype=torch.float64, generator=draw))
        self.critic = nn.Parameter(torch.randn(3, dtype=torch.float64, generator=draw))
        self.forwards: list[int] = []

    def evaluate(self, decisions: Decisions, needs: frozenset[str], probes: Mapping = {}) -> Evaluation:
        self.forwards.append(len(decisions))
        seen = decisions.context["x"]
        log_probs = (seen @ self.actor).log_softmax(-1)
        columns = {"log_prob": log_probs.gather(-1, decisions.action[..., None])[..., 0]}
        if "entropy" in needs:
            columns["entropy"] = -(log_probs.exp() * log_probs).sum(-1)
        if "value" in needs:
            columns["value"] = seen @ self.critic
        return Evaluation(**columns)

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        now = self.evaluate(decisions, needs)
        value = decisions.context["x"] @ self.critic
        following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
        found = {"old_log_prob": now.log_prob, "value": value, "next_value": following}
        return decisions.replace(**{name: found[name].detach() for name in needs})

    @property
    def vector(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()])


def collection(seed: int = 0, ragged: bool = True) -> Decisions:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, COLUMNS + 1, (ROWS,), generator=draw) if ragged else torch.full((ROWS,), COLUMNS)
    mask = torch.arange(COLUMNS) < lengths[:, None]
    final = mask & (torch.arange(COLUMNS) == lengths[:, None] - 1)
    behaviour = -torch.rand(ROWS, COLUMNS, dtype=torch.float64, generator=draw)
    return Decisions(
        mask=mask,
        context={"x": torch.randn(ROWS, COLUMNS, 3, dtype=torch.float64, generator=draw)},
        action=torch.randint(0, ACTIONS, (ROWS, COLUMNS), generator=draw),
        behaviour_log_prob=behaviour,
        reward=torch.where(final, torch.randn(ROWS, COLUMNS, dtype=torch.float64, generator=draw), 0.0),
        terminated=final,
        truncated=torch.zeros_like(final),
        group=torch.arange(ROWS) // 3,
        index=torch.arange(ROWS) // 3,
        key=torch.arange(ROWS),
        extras={"budget": torch.full((ROWS,), COLUMNS)},
    )


def learnt(method: Method, policy: Softmax, rounds: int = 2, ragged: bool = True, **options) -> tuple[Learn, Loop]:
    memory = Fresh()
    learn = Learn("policy", policy, method, memory, **options)
    loop = Loop(System({"policy": policy}, {"fresh": memory}, ()))
    for round_ in range(rounds):
        memory.put(collection(round_, ragged))
        learn.run(loop, round_)
    return learn, loop


def composed(slug: str, **plan) -> Method:
    """The method on this policy's step, small and without clipping; reference log-probs come from a scorer."""
    method = ascent.method(slug)
    return method.replace(step=SGD(0.1, max_gradient_norm=1.0), plan=dataclasses.replace(method.plan, **plan))


SLUGS = [
    "reinforce", "a2c", "ppo", "rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce_plus_plus",
    "entropy_mechanism", "copg",
]  # fmt: skip


@pytest.mark.parametrize("slug", SLUGS)
def test_micro_batches_change_nothing(slug: str) -> None:
    """Annotation, preparation and gradient of two rounds in pieces of 1, 4 and 5 rows: the same weights."""
    method = composed(slug, passes=2, minibatches=2, unit="group")
    scorers = {"reference_log_prob": log_prob_of(Softmax(5))}
    whole = Softmax()
    straight = learnt(method, whole, scorers=scorers)[1].recorded
    assert float((whole.vector - Softmax().vector).abs().max()) > 1e-4, "the test would hold without learning"
    for rows in (1, 4, 5):
        policy = Softmax()
        recorded = learnt(method, policy, scorers=scorers, micro_rows=rows)[1].recorded
        assert torch.allclose(policy.vector, whole.vector, atol=1e-10, rtol=0), rows
        for name, metrics in straight.items():
            assert torch.stack(recorded[name]).double() == pytest.approx(torch.stack(metrics).double(), abs=1e-6), name
        if method.keep_together == "row":
            assert max(policy.forwards) <= rows, "no forward is larger than asked for"


def test_a_model_whose_rows_are_coupled_is_never_split() -> None:
    class Coupled(Softmax):
        splittable = False

    learnt(composed("reinforce"), Coupled())
    with pytest.raises(ValueError, match=r"splittable is False.*micro_rows=4 and 1 processes"):
        learnt(composed("reinforce"), Coupled(), micro_rows=4)


def test_decisions_are_dealt_singly_and_split_singly() -> None:
    method = composed("ppo", passes=2, minibatches=3, unit="decision")
    policies = [Softmax(), Softmax()]
    learnt(method, policies[0])
    learnt(method, policies[1], micro_rows=3)
    assert torch.allclose(policies[0].vector, policies[1].vector, atol=1e-10, rtol=0)


def test_where_the_sampler_is_exact_no_second_forward_is_made() -> None:
    policy = Softmax()
    learnt(composed("reinforce"), policy, rounds=1, exact_behaviour=True)
    assert len(policy.forwards) == 1


@pytest.mark.parametrize(("when", "updates"), [("before", 2), ("after", 3)])
def test_an_early_stop_ends_the_walk_before_or_after_the_step(when: str, updates: int) -> None:
    """The third of six updates is the first whose metric exceeds."""
    method = composed("grpo", passes=3, minibatches=2, unit="group", stop=Stop("probe", 2.5, when))
    policy = Softmax()
    memory = Fresh()
    learn = Learn("policy", policy, method, memory, scorers={"reference_log_prob": log_prob_of(Softmax(5))})
    loop = Loop(System({}, {}, ()))
    improve, seen = learn.improve, []

    def counted(now: Evaluation, rows: Decisions, totals: dict[str, Tensor]) -> None:
        improve(now, rows, totals)
        seen.append(policy.vector)
        totals["probe"] = torch.tensor(float(len(seen)))

    learn.improve = counted
    memory.put(collection())
    learn.run(loop, 0)
    assert len(seen) == 3
    assert learn.updates == updates
    assert torch.equal(policy.vector, seen[2]) == (when == "before"), "before: the update that exceeds moves nothing"
    assert all(parameter.grad is None for parameter in policy.parameters())
    memory.put(collection(1))
    seen.clear()
    learn.run(loop, 1)
    assert learn.position == 0, "the next collection is walked from its start"
    assert learn.rounds == 2


def test_schedules_read_the_clock() -> None:
    """The learning rate falls with the run's progress, the coefficient of a term too."""
    method = composed("grpo")
    term = dataclasses.replace(method.losses["kl"], coefficient=Linear(1.0, 0.0))
    method = method.replace(step=SGD(Linear(0.4, 0.0)), plan=Plan()).with_terms(kl=term)
    memory, policy = Fresh(), Softmax()
    learn = Learn("policy", policy, method, memory, scorers={"reference_log_prob": log_prob_of(Softmax(5))})
    loop = Loop(System({}, {}, ()))
    loop.total = 4
    ratios = []
    for step in range(4):
        loop.step = step
        memory.put(collection())
        learn.run(loop, step)
        recorded = loop.recorded
        ratios.append(float(recorded["loss/kl"][-1] / recorded["kl_reference"][-1]))
    assert [float(x) for x in loop.recorded["learning_rate"]] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [ratio / ratios[0] for ratio in ratios] == pytest.approx([1, 0.75, 0.5, 0.25], rel=0.3)


def test_every_counts_rounds_and_hooks_stand_around_the_stage() -> None:
    notes: list[str] = []
    memory, policy = Fresh(), Softmax()
    learn = Learn(
        "policy", policy, composed("reinforce"), memory, every=2,
        before=[lambda: notes.append("before")], after=[lambda: notes.append("after")],
    )  # fmt: skip
    loop = Loop(System({}, {}, ()))
    for round_ in range(4):
        memory.put(collection(round_))
        learn.run(loop, round_)
    assert notes == ["before", "after"] * 2
    assert learn.rounds == 2


def test_another_stage_prefixes_its_metrics() -> None:
    memory = Fresh()
    memory.put(collection())
    loop = Loop(System({}, {}, ()))
    Learn("critic", Softmax(), composed("reinforce"), memory).run(loop, 0)
    assert "critic/loss" in loop.recorded
    assert "loss" not in loop.recorded


@pytest.mark.parametrize("passes", [1, 3])
def test_a_stage_goes_on_in_the_middle_of_its_collection(tmp_path, passes: int) -> None:
    """Every update in turn is the last before a kill."""
    method = composed("ppo", passes=passes, minibatches=3, unit="decision").replace(step=ascent.method("ppo").step)

    class Killed(Exception):
        pass

    class Kill:
        def __init__(self, at: int) -> None:
            self.at = at

        def updated(self, loop: Loop) -> None:
            if loop.updates == self.at:
                raise Killed

    straight = Softmax()
    learnt(method, straight, rounds=1)
    for at in range(1, 3 * passes):
        memory, policy = Fresh(), Softmax()
        memory.put(collection(0))
        learn = Learn("policy", policy, method, memory)
        with pytest.raises(Killed):
            learn.run(Loop(System({}, {}, ()), [Kill(at)]), 0)
        state = {"learn": learn.state_dict(), "model": policy.state_dict()}
        state = checkpoint.load(checkpoint.save(tmp_path, at, state))
        other = Softmax(9)
        other.load_state_dict(state["model"])
        resumed = Learn("policy", other, method, Fresh())
        resumed.load_state_dict(state["learn"])
        resumed.run(Loop(System({}, {}, ())), 0)
        assert torch.equal(other.vector, straight.vector), at


@pytest.mark.parametrize(("broken", "stage"), [("loss", "loss"), ("gradient", "gradient")])
def test_numbers_that_are_not_finite_end_the_run_and_name_the_stage(broken: str, stage: str) -> None:
    class Broken(Softmax):
        def evaluate(self, decisions: Decisions, needs: frozenset[str], probes: Mapping = {}) -> Evaluation:
            now = super().evaluate(decisions, needs)
            if not torch.is_grad_enabled():
                return now
            if broken == "loss":
                return Evaluation(log_prob=now.log_prob * torch.nan, value=now.value)
            # The root of nothing has an infinite slope.
            return Evaluation(log_prob=now.log_prob + (0.0 * self.actor.sum()).sqrt(), value=now.value)

    with pytest.raises(Diverged, match=rf"the {stage} of stage 'policy' is not finite at update 0 .*learning_rate"):
        learnt(composed("ppo", passes=1, minibatches=1, unit="row"), Broken())


def test_an_update_without_a_decision_moves_nothing() -> None:
    policy = Softmax()
    memory = Fresh()
    empty = collection()
    memory.put(empty.replace(mask=torch.zeros_like(empty.mask)))
    loop = Loop(System({}, {}, ()))
    Learn("policy", policy, composed("reinforce"), memory).run(loop, 0)
    assert torch.equal(policy.vector, Softmax().vector)
    assert float(loop.recorded["loss"][0]) == 0
