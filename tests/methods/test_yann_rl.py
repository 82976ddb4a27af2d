"""YANN-RL: its targets, its start, its bounds; what is learnt stays beside the law."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.plan import Adam
from ascent.core.registry import method
from ascent.policies.affine.linear import quality, riccati
from ascent.systems.config import ControlConfig
from ascent.systems.run import train
from ascent.systems.yann_rl import controller, models
from ascent.worlds.gym import Environments
from ascent.worlds.regulated import ClippedPendulum, SafetyReactor

PENDULUM = "ascent/ClippedPendulum-v0"


def config(output: Path, **changes: object) -> ControlConfig:
    plain = {
        "method": "yann_rl", "env": PENDULUM, "environments": 1, "horizon": 10, "steps": 2, "evaluate_every": 0,
        "save_every": 0, "tensorboard": False, "quiet": True, "episodes": 2, "output": str(output),
        "set": ("batch=8", "start=20", "capacity=100"),
    }  # fmt: skip
    return ControlConfig(**{**plain, **changes})  # type: ignore[arg-type]


def test_target_and_losses_by_hand() -> None:
    """Costs 1 and 2; y = cost + g Q', no bootstrap after termination; rewards are minus costs."""
    yann = method("yann_rl", discount=0.9)
    critic = yann.companions["critic"]
    decisions = Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=-torch.tensor([[1.0], [2.0]], dtype=torch.float64),
        terminated=torch.tensor([[False], [True]]),
        truncated=torch.tensor([[True], [False]]),
        next_value=-torch.tensor([[[10.0]], [[7.0]]], dtype=torch.float64),
    )
    credited = critic.credit(decisions)
    assert credited.value_target.tolist() == [[-10.0], [-2.0]]
    value = -torch.tensor([[[9.0]], [[5.0]]], dtype=torch.float64).requires_grad_()
    assert float(critic.loss(Evaluation(value=value), credited)[0].detach()) == pytest.approx((1.0 + 9.0) / 2)
    # The policy minimises the mean cost: its loss is the mean of Q(s, pi(s)) as a cost.
    outcome = -torch.tensor([[[9.0]], [[5.0]]], dtype=torch.float64).requires_grad_()
    loss = yann.loss(Evaluation(outcome=outcome), decisions)[0]
    assert float(loss.detach()) == pytest.approx(7.0)
    (gradient,) = torch.autograd.grad(loss, outcome)
    assert gradient.flatten().tolist() == [-0.5, -0.5]


def test_the_steps_have_no_weight_decay() -> None:
    yann = method("yann_rl")
    for step in (yann.step, yann.companions["critic"].step):
        assert isinstance(step, Adam) and step.weight_decay == 0.0


def networks(**parameters: object):  # type: ignore[no-untyped-def]
    environments = Environments(PENDULUM, 1, squashed=True)
    return models(config(Path("none")), method("yann_rl", **parameters), environments)


def test_the_run_begins_as_predictive_control() -> None:
    known = controller(ClippedPendulum().design(), method("yann_rl"))
    assert len(known.law.regions) == 7
    found = networks()
    states = np.random.default_rng(0).uniform([-3, -8], [3, 8], (500, 2)).astype(np.float32)
    said = found.actor.head.mode(found.actor.numpy_actor().outputs(states)) * 2.0
    assert np.abs(said - known.law.evaluate(states.astype(float))).max() < 1e-6
    x = torch.from_numpy(states)
    for one, other in ((found.actor, found.target_actor), (found.critics, found.target_critics)):
        assert not any(p.requires_grad for p in other.parameters())
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(found.target_actor.fresh(x, None)[0], found.actor.fresh(x, None)[0])


def test_what_learns_and_what_stays() -> None:
    """Of the actor only the injected networks: 7 regions of 2 -> 16 -> 16. Of the critic everything."""
    found = networks()
    counts = {name: p.numel() for name, p in found.actor.named_parameters()}
    assert sum(counts.values()) == 7 * (2 * 16 + 16 + 16 * 16 + 16)
    assert sum(p.numel() for p in found.critics.parameters()) == 4 + 2 + 1 + 3 * 64 + 64 + 64 * 64 + 64
    assert found.actor.head.start == 0 and found.actor.head.exploration == 0.0


@pytest.mark.parametrize("choice", ["undiscounted", "discounted"])
def test_the_riccati_choice(choice: str) -> None:
    """Discounted: the critic's least cost is its own fixed point, min_u Q(s, u) = s'Ps. Undiscounted: it is not."""
    known = controller(ClippedPendulum().design(), method("yann_rl", riccati=choice, discount=0.9))
    one, two, three = known.quality
    least = one - two @ np.linalg.solve(three, two.T) / 4.0
    again = quality(known.a, known.b, np.diag([1.0, 0.1]), np.array([[0.001]]), least, 0.9)
    assert all(np.allclose(x, y) for x, y in zip(again, known.quality, strict=True)) == (choice == "discounted")
    if choice == "undiscounted":
        value = riccati(known.a, known.b, np.diag([1.0, 0.1]), np.array([[0.001]]))
        assert np.allclose(one, np.diag([1.0, 0.1]) + 0.9 * known.a.T @ value @ known.a)


def test_the_reactor_has_its_controller() -> None:
    plant = SafetyReactor()
    law = controller(plant.design(), method("yann_rl")).law
    assert len(law.regions) == 7
    for seed in range(5):
        plant.reset(seed=seed)
        for _ in range(100):
            assert not plant.step(law.evaluate(plant.state))[2]
        assert np.abs(plant.state).max() < 1e-2


def test_predictive_control_holds_what_it_can() -> None:
    """The paper's pattern: from rest, small angles are cheap, large ones fall."""
    plant, law = ClippedPendulum(), controller(ClippedPendulum().design(), method("yann_rl")).law
    fallen = []
    for angle in (0.1, 0.3, 0.38, 0.45, 0.5):
        plant.reset(options={"state": [angle, 0.0]})
        before = plant.violations
        for _ in range(200):
            plant.step(law.evaluate(plant.state))
        fallen.append(plant.violations > before)
    assert fallen == [False, False, False, True, True]


def test_training_moves_the_networks_and_counts_violations(tmp_path: Path) -> None:
    result = train(config(tmp_path / "run", env_set=("fallen=0.001",), steps=3))
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    counts = [row["violations"] for row in rows if "violations" in row]
    assert counts == sorted(counts) and counts[-1] > 0
    weights = load_file(result.folder / "policy" / "policy.safetensors")
    fresh = networks().actor.state_dict()
    assert set(weights) == set(fresh)
    assert any(not torch.equal(weights[name], fresh[name]) for name in weights)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("horizon", 0),
        ("discount", 0.0),
        ("width", 0),
        ("critic_width", 0),
        ("initial", 0.0),
        ("zero", "third"),
        ("outside", "far"),
        ("riccati", "none"),
        ("critic", "linear"),
        ("exploration", -0.1),
        ("target_rate", 0.0),
        ("policy_target_rate", 1.5),
        ("start", 1),
        ("learning_rate", 0.0),
        ("critic_learning_rate", -1.0),
        ("search", "both"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameter: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{parameter} must be"):
        method("yann_rl", **{parameter: value})
