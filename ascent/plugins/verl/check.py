"""verl's whole configuration against the method that it names, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ascent.plugins.verl.functions import plain
from ascent.plugins.verl_feed import ACTOR, ALGORITHM, BUDGET, PREFIX, contradictions, reading


def compose(overrides: Sequence[str]) -> DictConfig:
    """verl's ppo_trainer configuration with overrides; `--config-path` and `--config-name` lead to another file."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir, initialize_config_module

    named = dict(item.removeprefix("--").split("=", 1) for item in overrides if item.startswith("--config-"))
    given = [item for item in overrides if not item.startswith("--config-")]
    name = named.get("config-name", "ppo_trainer")
    if "config-path" in named:
        with initialize_config_dir(str(Path(named["config-path"]).resolve()), version_base=None):
            return hydra_compose(name, overrides=given)
    with initialize_config_module("verl.trainer.config", version_base=None):
        return hydra_compose(name, overrides=given)


def problems(config: Any) -> list[str]:
    """What contradicts the method that `algorithm.adv_estimator` names, as sentences; empty where nothing does.

    Args:
        config: verl's whole configuration, as its `main` receives it.
    """
    name = config.algorithm.adv_estimator
    if not str(name).startswith(PREFIX):
        return [f"{ALGORITHM}.adv_estimator is {name!r}, and not one of Ascent's, which begin with {PREFIX!r}"]
    parameters = plain(config.algorithm.get("ascent"))
    try:
        found = reading(str(name).removeprefix(PREFIX), parameters)
    except (ValueError, TypeError) as error:
        return [str(error)]
    wanted = found.settings()
    said = {path: OmegaConf.select(config, path, default=None) for path in wanted}
    listed = contradictions(wanted, said)
    policy_loss = config.actor_rollout_ref.actor.policy_loss
    if policy_loss.get("_target_") != "ascent.plugins.verl.AscentPolicyLoss":
        listed.append(f"{ACTOR}.policy_loss._target_ must be ascent.plugins.verl.AscentPolicyLoss")
    elif plain(policy_loss.get("ascent")) != parameters:
        listed.append(f"{ACTOR}.policy_loss.ascent and {ALGORITHM}.ascent must hold the same parameters")
    if found.budgeted and config.algorithm.get("ascent_budget") is None:
        listed.append(f"{ALGORITHM}.ascent_budget must be {BUDGET}")
    if found.whole and not policy_loss.get("per_micro_batch", False):
        listed += _parts(config)
    return listed


def _parts(config: Any) -> list[str]:
    """Why an update does not reach one rank in one micro-batch."""
    actor, trainer = config.actor_rollout_ref.actor, config.trainer
    ranks = trainer.n_gpus_per_node * trainer.nnodes
    rows = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    parts = actor.use_dynamic_bsz or actor.ppo_micro_batch_size_per_gpu != rows
    if ranks == 1 and not parts:
        return []
    return [
        f"the method chooses by the whole update of {rows} rows, which {ranks} GPUs see in parts; give one GPU all of "
        f"it ({ACTOR}.ppo_micro_batch_size_per_gpu={rows}, use_dynamic_bsz=false), or accept a choice on each "
        f"micro-batch by +{ACTOR}.policy_loss.per_micro_batch=true"
    ]
