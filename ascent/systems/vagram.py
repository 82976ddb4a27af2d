"""Model-based SAC as a program: fit an ensemble, imagine with it, and let SAC learn from both memories.

start = Repeat(Collect uniform actions)
round = Repeat(block: Periodic(UntilNoBetter(Learn(model)), Collect imagined rollouts)
                      Collect 1 step -> Replay
                      Repeat(updates: SAC's stages on a mixture of the real and the imagined memory))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.dynamics import squared
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.random import key
from ascent.methods.vagram import ModelLoss, Ramp
from ascent.policies.dynamics import Dynamics, Predicted, StateValues
from ascent.sampling.imagined import ImaginedSampler
from ascent.sampling.vector import VectorSampler
from ascent.systems import off_policy
from ascent.systems.assembly import Assembly
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.training.annotate import evaluated
from ascent.training.early_stopping import Periodic, UntilNoBetter
from ascent.training.held_out import HeldOut, Mixture
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Replay, Shared
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase, Repeat
from ascent.worlds.termination import Termination, termination

CHUNK = 4096  # rows whose slopes are taken together


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The assembly of `vagram`. A step of the run is a block of environment steps with its updates.

    Raises:
        BadConfig: the world is no environment with bounded real actions and a known end, or an option has no meaning.
    """
    off_policy.refuse_options(config, method, processes)
    assert isinstance(config, ControlConfig)
    ends = known_end(config)
    environments = off_policy.bounded(config, method)
    sizes, count = method.parameters, config.environments
    models = off_policy.networks(config, method, environments)
    dynamics = Dynamics(
        environments.observation_size,
        environments.actions.dimensions,
        int(sizes["members"]),
        int(sizes["elites"]),
        tuple(sizes["model_hidden"]),
        sizes["loss"] == "nll",
        config.seed,
    )
    sampler = VectorSampler(models.actor, environments, 1, config.seed, log_probs=False)
    start, epoch = int(sizes["start"]), int(sizes["epoch"])
    real = Replay(int(sizes["capacity"]), int(sizes["batch"]), config.seed)

    def ramp(numbers: Ramp) -> Callable[[], float]:
        return lambda: at(numbers, max(sampler.consumed - start, 0) / epoch)

    rollouts = int(sizes["rollouts"]) * int(sizes["model_every"])
    longest = round(max(sizes["horizon"][2:]))
    imagined = Replay(rollouts * longest * int(sizes["retain"]), int(sizes["batch"]), key(config.seed, "imagined"))
    horizon = ramp(sizes["horizon"])
    dreamer = ImaginedSampler(
        models.actor,
        dynamics,
        lambda: real.content().context["observation"].squeeze(1),
        ends,
        rollouts,
        lambda: round(horizon()),
        config.seed,
    )
    fit = fitting(config, method, models, dynamics, real, lambda: sampler.consumed)
    learn = Periodic(
        "model",
        max(int(sizes["model_every"]) // count, 1),
        (fit, Collect("imagined", dreamer, imagined, imagined=True)),
    )
    shared = Shared(
        Mixture(real, imagined, ramp(sizes["share"]), config.seed), off_policy.annotation(config, method, models)
    )
    collect = Collect("collect", sampler, real, statistics=sampler.statistics)
    updates = Repeat("updates", count * int(sizes["updates"]), off_policy.stages(config, method, models, shared))
    block = Repeat("block", off_policy.horizon(config), (learn, collect, updates))
    system = System(
        {**models.named(), "dynamics": dynamics},
        {"replay": real, "imagined": imagined, "shared": shared},
        (Phase("start", (Repeat("acts", -(-start // count), (collect,)),), 1), Phase("train", (block,), config.steps)),
        off_policy.evaluator(config, models.actor),
        lambda: sampler.consumed,
    )
    return Assembly(system, method, "steps", "return", saver(config, method, models, dynamics))


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where the world is no environment with bounded real actions and a known end."""
    off_policy.refuse(config, method)
    assert isinstance(config, ControlConfig)
    known_end(config)


def known_end(config: ControlConfig) -> Termination:
    """The world's termination, of the wrapped environment where it is distracted. Raises BadConfig if unknown."""
    name = config.env
    if name.startswith("ascent/Distracted"):
        name = str(config.env_arguments.get("environment", "Pendulum-v1"))
    try:
        return termination(name)
    except ValueError as error:
        raise BadConfig(f"imagined rollouts must know when an episode ends: {error}") from error


def at(ramp: Ramp, epoch: float) -> float:
    """The ramp's number at an epoch."""
    first, last, low, high = ramp
    done = 1.0 if epoch >= last else max(epoch - first, 0.0) / (last - first)
    return low + (high - low) * done


def fitting(
    config: ControlConfig,
    method: Method,
    models: off_policy.Models,
    dynamics: Dynamics,
    real: Replay,
    consumed: Callable[[], int],
) -> UntilNoBetter:
    """The stage that fits the ensemble on the real memory until the held-out loss stops falling."""
    sizes, model = method.parameters, method.companions["model"]
    critics = [models.target_critics] if sizes["values"] == "targets" else [models.critics, models.target_critics]
    values = StateValues(models.actor, critics)
    until = int(sizes["start"]) + int(sizes["warm_up"])

    def annotate(content: Decisions) -> Decisions:
        observation, successor = content.context["observation"], content.context["next_observation"]
        warm = torch.full(content.mask.shape, float(consumed() < until))
        found = {"change": successor - observation, "warm_up": warm}
        chunks = successor.split(CHUNK)
        if "value_slope" in model.needs:
            pairs = [values.slopes(chunk) for chunk in chunks]
            found["state_value"], found["value_slope"] = (torch.cat(several) for several in zip(*pairs, strict=True))
        else:
            with torch.no_grad():
                found["state_value"] = torch.cat([values(chunk) for chunk in chunks])
        return content.with_extras(found)

    rows = HeldOut(real, int(sizes["model_batch"]), float(sizes["held_out"]), dynamics.members, config.seed, annotate)
    seen = Predicted(dynamics, values)
    terms = [term.value for term in model.losses.values() if isinstance(term.value, ModelLoss)]

    def said() -> tuple[Evaluation, Decisions]:
        held = rows.parts[1]
        now = evaluated(seen, held, model.evaluates, None)
        return now, model.prepare(held, now)

    @torch.no_grad()
    def judge() -> Tensor:
        now, held = said()
        return torch.stack([term.losses(now, held) for term in terms]).sum(0).mean((0, 1))

    @torch.no_grad()
    def report() -> Mapping[str, Tensor]:
        now, held = said()
        error = terms[0].said(now, held)[0]
        state = held.context["next_observation"].unsqueeze(-2) + error
        observed = held.column("state_value")
        gap = values(state) - observed.unsqueeze(-2)
        spread = (observed - observed.mean((0, 1))).square().mean()
        return {
            "one_step_error": squared(error).mean(),
            "value_error": gap.square().mean(),
            "value_variance": spread,
        }

    def begin() -> None:
        rows.begin()
        fitted = rows.parts[0]
        dynamics.standardise(fitted.context["observation"].squeeze(1), fitted.action.squeeze(1))

    def choose(losses: Tensor) -> None:
        dynamics.elite.copy_(torch.argsort(losses, stable=True)[: len(dynamics.elite)])

    return UntilNoBetter(
        "fit",
        (Learn("model", seen, model, rows, seed=config.seed),),
        lambda: rows.turns,
        dynamics,
        judge,
        int(sizes["patience"]),
        float(sizes["improvement"]),
        int(sizes["model_epochs"]),
        (begin,),
        choose,
        report,
    )


def saver(
    config: ControlConfig, method: Method, models: off_policy.Models, dynamics: Dynamics
) -> Callable[[Path], None]:
    """Writes the policy, and the critics and the ensemble beside it."""
    policy = off_policy.saver(config, method, models.actor)

    def save(folder: Path) -> None:
        policy(folder)
        for name, network in {"critics": models.critics, "dynamics": dynamics}.items():
            tensors = {place: tensor.contiguous() for place, tensor in network.state_dict().items()}
            save_file(tensors, folder / f"{name}.safetensors")

    return save
