"""The roads by which verl finds the plug-in, its version guard, and its configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here; `make test-plugins` builds its environment")

from verl.workers.config import PolicyLossConfig

import ascent
from ascent.plugins import verl as plugin
from ascent.plugins.verl.__main__ import main
from ascent.plugins.verl.check import compose, problems
from ascent.plugins.verl.functions import AscentPolicyLoss, PolicyLoss
from ascent.plugins.verl_feed import Refused, overrides
from tests.plugins.verl_batch import configured

# Fresh interpreters that import verl, on a busy machine.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(ascent.__file__).parents[1]
ACTOR = "actor_rollout_ref.actor"
ASK = (
    "from verl.trainer.ppo import core_algos as c; "
    "print(c.get_adv_estimator_fn('ascent_grpo'), c.get_policy_loss_fn('ascent_grpo'))"
)
FOUND = "Estimator(slug='grpo') PolicyLoss(slug='grpo')"
LAUNCH = (f"{ACTOR}.ppo_micro_batch_size_per_gpu=4", "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter beside this source tree."""
    merged = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=merged, timeout=840)


@pytest.mark.skipif(
    not any(point.value == "ascent.plugins.verl" for point in entry_points(group="verl.plugins")),
    reason="Ascent is not installed in this environment (pip install -e .), so it has no entry point",
)
def test_the_entry_point_is_enough() -> None:
    found = python(f"import verl; {ASK}")
    assert FOUND in found.stdout, found.stderr


def test_the_environment_variable() -> None:
    found = python(
        f"import verl; {ASK}", VERL_USE_EXTERNAL_PLUGINS="none", VERL_USE_EXTERNAL_MODULES="ascent.plugins.verl"
    )
    assert FOUND in found.stdout, found.stderr


def test_the_external_library_of_the_model() -> None:
    code = "from verl.utils.import_utils import import_external_libs as load; load('ascent.plugins.verl'); "
    found = python(code + ASK, VERL_USE_EXTERNAL_PLUGINS="none")
    assert FOUND in found.stdout, found.stderr


@pytest.mark.slow
def test_workers_of_ray_import_it_with_verl() -> None:
    """A fresh process of a local Ray, which has seen nothing of the driver but the environment."""
    ray = pytest.importorskip("ray")
    hidden = {"PYTHONPATH": str(ROOT), "VERL_USE_EXTERNAL_PLUGINS": "none"}
    known = {**hidden, "VERL_USE_EXTERNAL_MODULES": "ascent.plugins.verl"}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:

        @ray.remote
        def names() -> list[str]:
            from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

            return [name for name in POLICY_LOSS_REGISTRY if name.startswith("ascent_")]

        assert "ascent_bapo" in ray.get(names.options(runtime_env={"env_vars": known}).remote(), timeout=800)
    finally:
        ray.shutdown()


def test_without_any_of_them_it_is_unknown() -> None:
    found = python(f"import verl; {ASK}", VERL_USE_EXTERNAL_PLUGINS="none", VERL_USE_EXTERNAL_MODULES="")
    assert found.returncode != 0 and "ascent_grpo" in found.stderr


def test_a_taken_name_is_reported_though_verl_hides_it() -> None:
    code = (
        "from verl.trainer.ppo.core_algos import register_adv_est; register_adv_est('ascent_grpo')(print); "
        "import ascent.plugins.verl"
    )
    found = python(code, VERL_USE_EXTERNAL_PLUGINS="none")
    assert found.returncode != 0
    assert "*** Ascent is NOT registered in verl: ValueError" in found.stderr and "ascent_grpo" in found.stderr


def test_versions() -> None:
    for old in ("0.8.0", "0.7.1.dev0"):
        with pytest.raises(RuntimeError, match="needs verl"):
            plugin.check_version(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugin.check_version("0.9.0")
        plugin.check_version("0.9.1.dev")
    for new in ("0.10.0", "1.0.0rc1"):
        with pytest.warns(UserWarning, match="was tested with"):
            plugin.check_version(new)


def test_registering_twice_changes_nothing() -> None:
    assert plugin.register() == plugin.register()


def test_verl_validates_the_whole_configuration() -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    for slug in ("grpo", "dr_grpo", "rloo"):
        config = compose([*overrides(slug), *LAUNCH, "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4"])
        assert problems(config) == []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert not need_critic(config)
        assert need_reference_policy(config) == (slug == "grpo")
        validate_config(config, need_reference_policy(config), use_critic=False)


def test_the_parameters_reach_both_functions() -> None:
    config, actor = configured("dapo", {"clip_high": 0.31, "overlong_buffer": 0.5})
    assert isinstance(actor.policy_loss, AscentPolicyLoss) and isinstance(actor.policy_loss, PolicyLossConfig)
    assert actor.policy_loss.ascent == {"clip_high": 0.31, "overlong_buffer": 0.5} == dict(config.algorithm.ascent)
    term = actor.policy_loss.reading().actor.losses["policy"]
    assert term.value.high == 0.31
    with pytest.raises(Exception, match="frozen"):
        actor.policy_loss.loss_mode = "vanilla"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (f"{ACTOR}.loss_agg_mode=token-mean", "loss_agg_mode must be seq-mean-token-mean"),
        (f"{ACTOR}.use_kl_loss=false", "use_kl_loss must be true"),
        (f"{ACTOR}.kl_loss_coef=0.1", "kl_loss_coef must be 0.04, and is 0.1"),
        (f"{ACTOR}.policy_loss._target_=verl.workers.config.PolicyLossConfig", "_target_"),
        ("algorithm.adv_estimator=grpo", "not one of Ascent's"),
        ("algorithm.adv_estimator=ascent_capo", "`features`"),
        ("+algorithm.ascent.clip_lo=0.1", "clip_low"),
        ("+algorithm.ascent.passes=3", "'passes'"),
    ],
)
def test_contradictions_are_found_before_a_start(more: str, said: str) -> None:
    found = problems(compose([*overrides("grpo"), *LAUNCH, more]))
    assert any(said in problem for problem in found), found


def test_updates_in_parts_are_found_before_a_start() -> None:
    parts = [*overrides("bapo"), *LAUNCH]
    assert any("per_micro_batch" in problem for problem in problems(compose(parts)))
    assert problems(compose([*parts, f"+{ACTOR}.policy_loss.per_micro_batch=true"])) == []
    one = ["trainer.n_gpus_per_node=1", f"{ACTOR}.ppo_mini_batch_size=2", "actor_rollout_ref.rollout.n=2"]
    assert problems(compose([*parts, *one])) == []


def test_the_functions_refuse_what_contradicts_them() -> None:
    tensors = [torch.zeros(2, 3) for _ in range(3)]
    mask = torch.ones(2, 3)
    with pytest.raises(Refused, match="AscentPolicyLoss"):
        PolicyLoss("grpo")(
            *tensors,
            mask,
            config=configured("grpo", {})[1].__class__(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1),
        )
    _, contradicting = configured("grpo", {}, f"{ACTOR}.kl_loss_coef=0.5")
    with pytest.raises(Refused, match="kl_loss_coef must be"):
        PolicyLoss("grpo")(*tensors, mask, config=contradicting)
    config, _ = configured("reinforce_plus_plus", {}, "algorithm.use_kl_in_reward=false")
    with pytest.raises(Refused, match="use_kl_in_reward must be true"):
        plugin.Estimator("reinforce_plus_plus")(torch.zeros(2, 3), mask, config=config.algorithm)
    with pytest.raises(Refused, match="ascent_budget"):
        said: dict[str, Any] = {"adv_estimator": "ascent_dapo", "filter_groups": {"enable": True}}
        plugin.Estimator("dapo")(torch.zeros(2, 3), mask, config=said)


def test_two_different_methods_are_refused_when_verl_builds_its_configuration() -> None:
    with pytest.raises(Exception, match="name the same method twice"):
        configured("grpo", {}, "algorithm.adv_estimator=ascent_rloo")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overrides", "dapo", "clip_high=0.3"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert "+algorithm.ascent={clip_high:0.3}" in lines
    assert main(["check", *[line for line in lines if line], *LAUNCH]) == 0
    assert main(["check", *LAUNCH]) == 1
    assert "adv_estimator" in capsys.readouterr().err
    assert main(["methods"]) == 0
    assert "capo" in capsys.readouterr().out
    assert main([]) == 2


def test_the_example_configuration_fits_its_method() -> None:
    folder = ROOT / "examples" / "verl"
    if not folder.is_dir():
        pytest.skip("the examples are not installed beside this package")
    config = compose([f"--config-path={folder}", "--config-name=bapo"])
    assert problems(config) == []
    assert config.algorithm.adv_estimator == "ascent_bapo"
