"""gbrl: the composition, its parts, and runs with trees from the command line's configuration on."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.plan import Adam, AppendTree, Linear, TreeAdam
from ascent.core.registry import card
from ascent.methods.gbrl import WeightedLogProb
from ascent.policies.trees.ensemble import Ensemble
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import resume, train


def config(folder: Path, **changes: Any) -> ControlConfig:
    plain: dict[str, Any] = {
        "method": "gbrl",
        "env": "CartPole-v1",
        "environments": 2,
        "horizon": 32,
        "steps": 3,
        "episodes": 2,
        "set": ("passes=2", "minibatches=2", "depth=3", "bins=16"),
        "evaluate_every": 0,
        "save_every": 0,
        "output": str(folder),
        "tensorboard": False,
        "quiet": True,
    }
    return ControlConfig(**{**plain, **changes})


def test_advantage_weighted_regression_by_hand() -> None:
    """-min(exp(A / 0.5), 20) log pi: weights e^-2, 1, e^2 and, of e^4, 20."""
    log_prob = torch.tensor([[-1.0, -2.0, -0.5, -3.0]], dtype=torch.float64, requires_grad=True)
    decisions = Decisions(
        mask=torch.ones(1, 4, dtype=torch.bool), advantage=torch.tensor([[-1.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    )
    value = WeightedLogProb(0.5, 20.0)(Evaluation(log_prob=log_prob), decisions)
    weights = torch.tensor([[math.exp(-2), 1.0, math.exp(2), 20.0]], dtype=torch.float64)
    torch.testing.assert_close(value, -weights * log_prob)
    (gradient,) = torch.autograd.grad(value.sum(), log_prob)
    torch.testing.assert_close(gradient, -weights)


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "awr"])
def test_it_is_the_algorithm_with_trees_for_a_step(algorithm: str) -> None:
    built = ascent.method("gbrl", algorithm=algorithm)
    if algorithm == "awr":
        assert built.losses["policy"].value == WeightedLogProb(0.05, 20.0)
        assert built.normalise is None
    else:
        options = {"value_coefficient": 0.872, "entropy_coefficient": 0.0, "trace": 0.95}
        if algorithm == "ppo":
            options |= {"minibatches": 4}
        base = ascent.method(algorithm, **options)
        assert (built.losses, built.advantage, built.plan) == (base.losses, base.advantage, base.plan)
        evaluation, decisions = base.example(4, 5, dtype=torch.float64)
        torch.testing.assert_close(built.loss(evaluation, decisions), base.loss(evaluation, decisions))
    assert isinstance(built.step, AppendTree)
    assert (built.step.learning_rate, built.step.value_learning_rate, built.step.shared) == (0.05, 0.005, True)
    assert built.step.critic is None
    networked = ascent.method("gbrl", algorithm=algorithm, critic="network", critic_learning_rate=1e-3)
    assert networked.step == dataclasses.replace(built.step, critic=Adam(1e-3, eps=1e-5, max_gradient_norm=0.5))
    assert networked.losses == built.losses
    moved = ascent.method("gbrl", algorithm=algorithm, optimiser="adam", betas=(0.8, 0.99), adam_eps=1e-6)
    assert moved.step == dataclasses.replace(built.step, adam=TreeAdam((0.8, 0.99), 1e-6))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"depth": 13}, r"depth must be a number in \[1, 12\]; got 13"),
        ({"growth": "obvious"}, "growth must be one of 'oblivious', 'greedy'; got 'obvious'"),
        ({"score": "l1"}, "score must be one of"),
        ({"candidates": "quantiles"}, "Did you mean 'quantile'"),
        ({"bins": 0}, "bins must be an integer >= 1"),
        ({"min_data": -1}, "min_data must be an integer >= 0"),
        ({"learning_rate": -0.1}, "learning_rate must be a number"),
        ({"value_learning_rate": Linear(0.1, -1.0)}, "value_learning_rate.end must be a number"),
        ({"feature_weights": (1.0, -1.0)}, "feature_weights must be a number"),
        ({"max_policy_gradient": 0.0}, "max_policy_gradient must be a number"),
        ({"control_variates": 1.0}, "control_variates must be a number"),
        ({"limit": 3}, "limit must be an integer >= 4"),
        ({"temperature": 0.0}, "temperature must be a number"),
        ({"algorithm": "sac"}, "algorithm must be one of"),
        ({"critic": "mlp"}, "critic must be one of 'trees', 'network'; got 'mlp'"),
        ({"critic_learning_rate": -1.0}, "critic_learning_rate must be a number"),
        ({"critic_gradient_norm": 0.0}, "critic_gradient_norm must be a number"),
        ({"optimiser": "rmsprop"}, "optimiser must be one of 'sgd', 'adam'"),
        ({"betas": (0.9, 1.0)}, r"betas must be a number in \[0, 1\)"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"adam_eps": 0.0}, "adam_eps must be a number"),
        ({"optimiser": "adam", "limit": 100}, "limit replaces trees by others"),
        ({"critic": "network", "max_value_gradient": 1.0}, "max_value_gradient cuts the gradient that trees"),
    ],
)
def test_bad_parameters_are_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ascent.method("gbrl", **wrong)


def test_every_parameter_is_documented() -> None:
    assert all(item.doc for item in card("gbrl").parameters)


def test_a_run_saves_trees_and_says_so(tmp_path: Path) -> None:
    result = train(config(tmp_path / "run", evaluate_every=3))
    ensemble = Ensemble.load(result.model / "trees.safetensors")
    assert ensemble.trees == 3 * 2 * 2
    assert ensemble.outputs == 3
    assert {"trees", "gradient_norm", "learning_rate", "loss/policy"} <= result.metrics[-2].keys()
    told = json.loads((result.model / "policy.json").read_text())
    assert (told["policy"], told["hidden"]) == ("trees", None)


@pytest.mark.parametrize(
    ("method", "options"), [("ppo", ("passes=2", "minibatches=2")), ("a2c", ()), ("reinforce", ()), ("capo", ())]
)
def test_any_surrogate_grows_trees(tmp_path: Path, method: str, options: tuple[str, ...]) -> None:
    if method == "capo":
        with pytest.raises(BadConfig, match="policy must be mlp for method 'capo'"):
            train(config(tmp_path / "run", method=method, set=options, policy="trees"))
        return
    result = train(config(tmp_path / "run", method=method, set=options, policy="trees", learning_rate=0.1))
    ensemble = Ensemble.load(result.model / "trees.safetensors")
    assert ensemble.trees == 3 * (4 if method == "ppo" else 1)
    assert ensemble.outputs == (2 if method == "reinforce" else 3)
    assert ensemble.array("rate")[0, 0] == pytest.approx(0.1)


def test_real_actions_categories_and_separate_trees(tmp_path: Path) -> None:
    small = ("passes=1", "minibatches=2", "depth=2", "shared=false")
    result = train(config(tmp_path / "real", env="Pendulum-v1", set=small))
    names = sorted(path.name for path in result.model.glob("*.safetensors"))
    assert names == ["log_std.safetensors", "policy_trees.safetensors", "value_trees.safetensors"]
    result = train(config(tmp_path / "words", env="ascent/DoorKey-v0", set=small))
    ensemble = Ensemble.load(result.model / "policy_trees.safetensors")
    assert ensemble.categorical.all()
    assert ensemble.array("equal").any()


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_network_for_the_value_beside_trees(tmp_path: Path, env: str) -> None:
    """Saved beside the trees of the policy, and, killed in a collection and resumed, the same bit for bit."""
    networked = {"env": env, "set": (*config(tmp_path).set, "critic=network")}
    whole = train(config(tmp_path / "whole", **networked))
    assert {"critic_gradient_norm", "gradient_norm", "loss/value"} <= whole.metrics[-1].keys()
    real = ["log_std.safetensors"] * (env == "Pendulum-v1")
    names = ["critic.safetensors", *real, "policy_trees.safetensors"]
    assert sorted(path.name for path in whole.model.glob("*.safetensors")) == names
    trees = Ensemble.load(whole.model / "policy_trees.safetensors")
    assert (trees.outputs, trees.trees) == (1 if real else 2, 3 * 2 * 2)
    train(config(tmp_path / "kept", save_every=1, keep=50, **networked))
    for late in sorted((tmp_path / "kept" / "checkpoints").iterdir())[7:]:
        shutil.rmtree(late)
    (tmp_path / "kept" / "result.json").unlink()
    again = resume(tmp_path / "kept", quiet=True)
    for name in names:
        assert (again.model / name).read_bytes() == (whole.model / name).read_bytes()


def test_networks_and_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="policy must be trees for method 'gbrl'"):
        train(config(tmp_path / "run", policy="mlp"))
    with pytest.raises(BadConfig, match="policy must be trees"):
        train(config(tmp_path / "run", recurrent=True))
    with pytest.raises(BadConfig, match="policy trees has no layers"):
        config(tmp_path / "run", policy="trees", hidden=(8,))
    with pytest.raises(BadConfig, match="feature_weights must be one number a feature, 4; got 2"):
        train(config(tmp_path / "run", set=("feature_weights=[1, 2]",)))
    with pytest.raises(BadConfig, match="policy must be"):
        config(tmp_path / "run", policy="forest")
    for method in ("sac", "props", "ggtd"):
        with pytest.raises(BadConfig, match=f"policy must be mlp for method '{method}'"):
            train(config(tmp_path / "run", method=method, set=(), policy="trees"))
    with pytest.raises(BadConfig, match="'gbrl' grows trees, which write no text"):
        train(LanguageConfig(method="gbrl", output=str(tmp_path / "run"), quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_killed_run_ends_with_the_same_trees(tmp_path: Path, optimiser: str) -> None:
    """Resumed from every checkpoint, also from the middle of a collection, bit for bit."""
    options = {"set": (*config(tmp_path).set, f"optimiser={optimiser}")}
    whole = train(config(tmp_path / "whole", **options))
    assert (Ensemble.load(whole.model / "trees.safetensors").adam is None) == (optimiser == "sgd")
    expected = (whole.model / "trees.safetensors").read_bytes()
    train(config(tmp_path / "kept", save_every=1, keep=50, **options))
    checkpoints = sorted((tmp_path / "kept" / "checkpoints").iterdir())
    assert len(checkpoints) == 13
    for update in (0, 3, 6):
        folder = tmp_path / f"from-{update}"
        shutil.copytree(tmp_path / "kept", folder)
        for late in sorted((folder / "checkpoints").iterdir())[update + 1 :]:
            shutil.rmtree(late)
        (folder / "result.json").unlink()
        again = resume(folder, quiet=True)
        assert (again.model / "trees.safetensors").read_bytes() == expected
