"""Off-policy control as a program: act into a replay memory, and learn critics, policy and temperature from it.

    start = Repeat(Collect uniform actions)
    round = Repeat(block: Collect 1 step -> Replay
                          Repeat(updates: Learn(critic), Learn(policy), Learn(temperature), Follow(targets)))

SAC, TD3 and DDPG differ in their methods, in their actor and in what the target networks say of a successor. Every
stage of an update draws the same batch, with its noise as columns: what a model says is a function of its parameters.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.random import Ahead, key
from ascent.core.uncertainty import LAPLACE
from ascent.evaluation.returns import evaluate_returns
from ascent.methods.td3 import smoothed
from ascent.policies.actor_critic import SPREAD, Activation
from ascent.policies.continuous import ContinuousActor, ContinuousHead, Judged, Temperature, standard_normal
from ascent.policies.critics import Critics
from ascent.policies.learning import constant_actor, constant_critics
from ascent.sampling.vector import VectorSampler
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.environments import copies
from ascent.systems.manifest import write
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Every, Replay, Shared
from ascent.training.processes import Processes
from ascent.training.program import Collect, Follow, Phase, Repeat, Stage
from ascent.worlds.gym import Environments

WIDTHS = {"sac": (256, 256), "td3": (400, 300), "ddpg": (400, 300)}
FINAL = {"ddpg": 3e-3}
"""Bound of the last layer's initial weights, where the paper sets it."""
ACTIVATIONS: Mapping[str, Activation] = {"ggtd": "tanh"}
"""Of the hidden layers where it is not "relu"."""
BLOCK = 64  # environment steps of a run's step, unless `horizon` says otherwise


@dataclasses.dataclass(frozen=True)
class Models:
    """The networks of a run; `targets` are slow copies.

    Attributes:
        actor, critics: what learns; others than these classes if they offer the same methods.
        target_actor: of a deterministic method; a soft one asks its present actor.
        target_critics: K.
        temperature: of a soft method; its only parameter is constant where it is not learned.
    """

    actor: ContinuousActor
    critics: Critics
    target_critics: Critics
    target_actor: ContinuousActor | None = None
    temperature: Temperature | None = None

    def named(self) -> dict[str, torch.nn.Module]:
        """By name, for a checkpoint."""
        found = {"policy": self.actor, "critic": self.critics, "critic_target": self.target_critics}
        others = {"policy_target": self.target_actor, "temperature": self.temperature}
        return found | {name: model for name, model in others.items() if model is not None}


Make = Callable[[ControlConfig, Method, Environments], Models]


def build(config: Config, method: Method, processes: Processes, make: Make | None = None) -> Assembly:
    """The assembly of `sac`, `td3` and `ddpg`. A step of the run is a block of environment steps with its updates.

    Args:
        config, method, processes: of the run.
        make: builds the models instead of `networks`.

    Raises:
        BadConfig: the world is no environment with bounded real actions, or an option has no meaning here.
    """
    refuse_options(config, method, processes)
    environments = bounded(config, method)
    sizes, count = method.parameters, config.environments
    models = (networks if make is None else make)(config, method, environments)
    sampler = VectorSampler(models.actor, environments, 1, config.seed, log_probs=False)
    replay = Replay(int(sizes["capacity"]), int(sizes["batch"]), config.seed)
    shared = Shared(replay, annotation(config, method, models))
    collect = Collect("collect", sampler, replay, statistics=sampler.statistics)
    updates = Repeat("updates", count * int(sizes["updates"]), stages(config, method, models, shared))
    start = Phase("start", (Repeat("acts", -(-int(sizes["start"]) // count), (collect,)),), 1)
    train = Phase("train", (Repeat("block", horizon(config), (collect, updates)),), config.steps)
    system = System(
        models.named(),
        {"replay": replay, "shared": shared},
        (start, train),
        evaluator(config, models.actor),
        lambda: sampler.consumed,
    )
    return Assembly(system, method, "steps", "return", saver(config, method, models.actor))


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where the world is no environment with bounded real actions, or an option has no meaning here."""
    refuse_options(config, method, Processes())
    assert isinstance(config, ControlConfig)
    bounded(dataclasses.replace(config, environments=1), method)


def refuse_options(config: Config, method: Method, processes: Processes) -> None:
    """Raise BadConfig for what these runs do not do."""
    slug = method.slug
    if not isinstance(config, ControlConfig):
        raise BadConfig(f"method {slug!r} needs an environment, and {config.world!r} is a task; give --env ID.")
    refuse_unfed(config, method)
    if processes.count > 1:
        raise BadConfig(f"method {slug!r} runs in one process; got {processes.count}. Start it without torchrun.")
    if config.recurrent:
        raise BadConfig(f"recurrent must be off for {slug}: replayed transitions carry no memory. Drop --recurrent.")
    for name in ("normalise_observation", "normalise_reward"):
        if getattr(config, name):
            raise BadConfig(f"{name} must be off for {slug}: replayed transitions would be of different scales.")
    for name in ("passes", "minibatches", "micro_rows"):
        if getattr(config, name) is not None:
            raise BadConfig(f"{name} is no choice of {slug} runs; an update is one batch: --set batch=256 updates=1")


def bounded(config: ControlConfig, method: Method) -> Environments:
    """The environment's copies, their actions scaled from [-1, 1]. Raises BadConfig for any other action space."""
    try:
        return copies(config, config.environments, squashed=True)
    except ValueError as error:
        if "squashed" not in str(error):
            raise
        raise BadConfig(
            f"method {method.slug!r} needs real actions with finite bounds, which environment {config.env!r} does not "
            "have. For discrete actions take ppo or a2c."
        ) from error


def horizon(config: ControlConfig) -> int:
    """Steps of each copy in a step of the run."""
    return config.horizon if config.horizon is not None else max(BLOCK // config.environments, 1)


def networks(config: ControlConfig, method: Method, environments: Environments) -> Models:
    """Fresh networks; the targets begin as copies."""
    sizes, size, actions = method.parameters, environments.observation_size, environments.actions.dimensions
    soft = "temperature" in sizes
    hidden = WIDTHS.get(method.slug, (256, 256)) if config.hidden is None else config.hidden
    head = ContinuousHead(
        actions,
        soft,
        exploration=float(sizes.get("exploration", 0.0)),
        pull=float(sizes["noise_pull"]) if sizes.get("noise") == "ornstein_uhlenbeck" else 1.0,
        start=-(-int(sizes["start"]) // config.environments),
    )
    final = FINAL.get(method.slug)
    activation = ACTIVATIONS.get(method.slug, "relu")
    actor = ContinuousActor(size, head, hidden, activation, config.seed, final)
    count = int(sizes.get("critics", 1)) * int(sizes.get("members", 1))
    spread = LAPLACE if SPREAD in method.companions["critic"].needs else None
    critics = Critics(size, actions, count, hidden, activation, config.seed, final, spread)
    return Models(
        actor,
        critics,
        copy.deepcopy(critics).requires_grad_(False),
        None if soft else copy.deepcopy(actor).requires_grad_(False),
        Temperature(float(sizes["temperature"])) if soft else None,
    )


def annotation(config: ControlConfig, method: Method, models: Models) -> Callable[[Decisions, int], Decisions]:
    """What a drawn batch is given: its noise, and what the target networks say of the successors."""
    sizes, actions, batch = method.parameters, models.actor.head.dimensions, int(method.parameters["batch"])
    name = torch.tensor(key(config.seed, "action_noise"))
    # Each round's draws for the present and for the next action, [batch, 1, 2 A].
    noise = Ahead(
        lambda rounds: standard_normal(name, rounds[:, None, None] * batch + torch.arange(batch)[:, None], 2 * actions)
    )

    judges = constant_critics(models.target_critics)
    fresh = constant_actor(models.actor if models.target_actor is None else models.target_actor)

    def soft(drawn: Decisions, round_: int) -> dict[str, Tensor]:
        assert models.temperature is not None
        own, following = noise(round_).split(actions, -1)
        successor = drawn.context["next_observation"]
        action, log_prob = fresh(successor, following)
        assert log_prob is not None
        return {
            "action_noise": own,
            "next_action_noise": following,
            "next_value": judges(successor, action),
            "next_log_prob": log_prob,
            "temperature": models.temperature.log.exp().expand(drawn.mask.shape),
        }

    def hard(drawn: Decisions, round_: int) -> dict[str, Tensor]:
        successor = drawn.context["next_observation"]
        action, _ = fresh(successor, None)
        if not sizes.get("smoothing"):
            return {"next_value": judges(successor, action)}
        following = noise(round_)[..., actions:]
        action = smoothed(action, following, float(sizes["smoothing"]), float(sizes["smoothing_clip"]))
        return {"next_action_noise": following, "next_value": judges(successor, action)}

    @torch.no_grad()
    def annotate(drawn: Decisions, round_: int) -> Decisions:
        return drawn.with_extras(soft(drawn, round_) if models.temperature is not None else hard(drawn, round_))

    return annotate


def stages(config: ControlConfig, method: Method, models: Models, shared: Shared) -> list[Stage]:
    """One update: critics, policy, temperature where it is learned, targets."""
    sizes, companions = method.parameters, method.companions
    if config.learning_rate is not None:
        rate = config.learning_rate
        companions = {
            name: one.replace(step=dataclasses.replace(one.step, learning_rate=rate))
            for name, one in companions.items()
        }
    delay = int(sizes.get("policy_every", 1))
    learns = "temperature" in companions

    def tell(now: Evaluation) -> None:
        shared.note({"own_log_prob": now.column("own_log_prob")})

    first = 1 if models.temperature is None else None
    found: list[Stage] = [
        Learn("critic", models.critics, companions["critic"], shared, seed=config.seed),
        Learn(
            "policy",
            Judged(models.actor, models.critics, first),
            method,
            Every(shared, delay),
            seed=config.seed,
            every=delay,
            seen=tell if learns else None,
        ),
    ]
    if learns:
        assert models.temperature is not None
        found.append(Learn("temperature", models.temperature, companions["temperature"], shared, seed=config.seed))
    pairs: list[tuple[torch.nn.Module, torch.nn.Module]] = [(models.critics, models.target_critics)]
    rate, every = float(sizes["target_rate"]), int(sizes.get("target_every", delay))
    if models.target_actor is None:
        return [*found, Follow("targets", pairs, rate, every)]
    policies: list[tuple[torch.nn.Module, torch.nn.Module]] = [(models.actor, models.target_actor)]
    own = sizes.get("policy_target_rate")
    if own is None:
        return [*found, Follow("targets", pairs + policies, rate, every)]
    return [*found, Follow("targets", pairs, rate, every), Follow("policy_target", policies, float(own), every)]


def evaluator(config: ControlConfig, actor: ContinuousActor) -> Callable[[int], Mapping[str, float]]:
    """Returns over held-out episodes with the actions' means."""

    def evaluate(step: int) -> Mapping[str, float]:
        held_out = copies(config, min(4, config.episodes), squashed=True)
        found = evaluate_returns(actor, held_out, config.episodes)
        held_out.close()
        return {"return": found.mean, "deviation": found.deviation, "length": float(found.lengths.mean())}

    return evaluate


def saver(config: ControlConfig, method: Method, actor: ContinuousActor) -> Callable[[Path], None]:
    """Writes policy.safetensors and policy.json."""

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: x.contiguous() for name, x in actor.state_dict().items()}, folder / "policy.safetensors")
        description: dict[str, Any] = {"env": config.env, "env_set": config.env_arguments, **actor.description()}
        write(folder / "policy.json", {**description, "observation_statistics": None})

    return save
