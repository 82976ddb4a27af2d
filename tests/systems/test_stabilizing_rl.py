"""MiniRL as a run: two engines, routes of every mode, what cannot be fed, and a stopped run that ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import ascent
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.policies.mixture import MixturePolicy, Replaying, embedded_mixture
from ascent.systems import warm_up
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import resume
from ascent.systems.stabilizing_rl import build
from ascent.training.processes import Processes
from ascent.worlds.text.arithmetic import Arithmetic

TASK = Arithmetic()


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(warm_up, "BATCH", 4)
    (tmp_path / "reward.py").write_text(
        "def score(prompts, completions, **columns):\n    return [float(len(text) % 3) for text in completions]\n"
    )
    return tmp_path


def options(tmp_path: Path, name: str, mixture: bool = True) -> dict[str, object]:
    folder = tmp_path / ("mixture" if mixture else "dense")
    if not folder.exists():
        make = embedded_mixture if mixture else embedded
        make(TASK.alphabet, hidden=16, layers=2, heads=2, context=64).save(folder)
    return {
        **{"task": "arithmetic", "model": str(folder), "steps": 2, "batch": 16, "group_size": 4, "held_out": 2},
        **{"samples": 1, "reward": f"{tmp_path / 'reward.py'}:score", "output": str(tmp_path / name)},
        **{"quiet": True, "tensorboard": False},
    }


def run(tmp_path: Path, name: str, mixture: bool = True, **more: object) -> list[dict[str, float]]:
    metrics = ascent.train("stabilizing_rl", **{**options(tmp_path, name, mixture), **more}).metrics
    return [line for line in metrics if "engine_kl" in line]


def test_the_dense_default_trains_and_says_how_far_apart_its_engines_are(tmp_path: Path) -> None:
    found = run(tmp_path, "dense-run", mixture=False, parameters={"minibatches": 2, "learning_rate": 0.01})
    assert found and all(line["engine_kl"] != 0 for line in found)
    for name in ("clip_fraction", "importance_weight", "importance_changed", "entropy", "reward"):
        assert name in found[-1], name
    exact = run(tmp_path, "exact", mixture=False, parameters={"engine": "float32"})
    assert all(abs(line["engine_kl"]) < 1e-5 for line in exact)
    assert max(abs(line["engine_kl"]) for line in found) > 1e-4


@pytest.mark.parametrize("replay", ["watch", "R2", "R3"])
def test_every_mode_of_replay_trains(tmp_path: Path, replay: str) -> None:
    parameters = {"replay": replay, "minibatches": 4, "learning_rate": 0.01, "router_noise": 0.1}
    found = run(tmp_path, replay, parameters=parameters)
    assert found and all(0 <= line["routes_changed"] <= line["tokens_rerouted"] <= 1 for line in found)
    assert max(line["routes_changed"] for line in found) > 0


def test_the_first_ratio_of_r2_is_one(tmp_path: Path) -> None:
    found = run(tmp_path, "first", parameters={"replay": "R2"})
    assert len(found) == 2 and all(line["routes_changed"] == 0.0 for line in found)
    # Rows are dealt into other batches than those of the recording forward, which moves the last bits.
    assert all(line["ratio"] == pytest.approx(1.0, abs=1e-6) for line in found)


def test_micro_batches_of_r2_are_one_update(tmp_path: Path) -> None:
    parameters = {"replay": "R2", "minibatches": 2, "learning_rate": 0.01}
    whole = run(tmp_path, "whole", parameters=parameters)
    parts = run(tmp_path, "parts", parameters=parameters, micro_rows=3)
    for one, two in zip(whole, parts, strict=True):
        for name in ("loss", "gradient_norm", "engine_kl", "routes_changed"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-6), name


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    parameters = {"replay": "R3", "minibatches": 2, "learning_rate": 0.01}
    more = {"steps": 3, "save_every": 1, "keep": 20, "evaluate_every": 0, "parameters": parameters}
    whole = ascent.train("stabilizing_rl", **{**options(tmp_path, "run"), **more})
    weights = (whole.model / "model.safetensors").read_bytes()
    checkpoints = sorted((whole.folder / "checkpoints").iterdir())
    assert len(checkpoints) > 4
    # In the middle of a collection of the second round.
    for late in checkpoints[4:]:
        for path in sorted(late.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        late.rmdir()
    again = resume(whole.folder, quiet=True)
    assert (again.model / "model.safetensors").read_bytes() == weights


def test_the_embedded_mixture_is_warmed_up_once(tmp_path: Path) -> None:
    config = LanguageConfig(
        method="stabilizing_rl", task="arithmetic", warm_up_steps=2, steps=1, batch=8, group_size=4, quiet=True
    )
    method = ascent.method("stabilizing_rl", experts=4, replay="R3")
    system = build(config, method, Processes()).system
    policy = system.models["policy"]
    assert isinstance(policy, MixturePolicy) and policy.config.num_experts == 4
    assert isinstance(system.program[0].stages[-1].model, Replaying)
    made = list((tmp_path / "cache").iterdir())
    build(config, method, Processes())
    assert list((tmp_path / "cache").iterdir()) == made and len(made) == 1
    dense = build(config, ascent.method("stabilizing_rl"), Processes()).system.models["policy"]
    assert type(dense) is CausalPolicy


def test_what_cannot_be_fed_is_refused_by_name(tmp_path: Path) -> None:
    dense = LanguageConfig(method="stabilizing_rl", task="arithmetic", batch=8, group_size=4)
    for parameters, named in (({"replay": "R3"}, "replay='R3'"), ({"router_noise": 0.1}, "router_noise")):
        with pytest.raises(BadConfig, match=rf"{named} needs a mixture of experts; add --set experts=8"):
            build(dense, ascent.method("stabilizing_rl", **parameters), Processes())
    with pytest.raises(BadConfig, match="give --task or --data instead of --env"):
        control = ControlConfig(method="stabilizing_rl", env="CartPole-v1")
        build(control, ascent.method("stabilizing_rl"), Processes())
    with pytest.raises(BadConfig, match="LlamaForCausalLM has no router that is known"):
        run(tmp_path, "no-router", mixture=False, parameters={"replay": "R2"})
    with pytest.raises(BadConfig, match=r"needs .*routes"):
        method = ascent.method("stabilizing_rl", replay="R3")
        config = LanguageConfig(method="grpo", task="arithmetic", batch=8, group_size=4)
        from ascent.systems.language import build as plain

        plain(config, method, Processes())
