"""YANN-RL: the off-policy assembly; its actor begins as predictive control, its critic as the cost of that.

The environment must say what linear control needs to know of it: `design()`, as in `ascent.worlds.regulated`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from ascent.core.method import Method
from ascent.policies.affine.actor import AffineActor, QuadraticCritic
from ascent.policies.affine.linear import Matrix, discretise, linearise, quality, riccati
from ascent.policies.affine.predictive import Program, program
from ascent.policies.affine.regions import PiecewiseAffine, explicit
from ascent.policies.critics import Critics
from ascent.systems import off_policy
from ascent.systems.assembly import Assembly
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.environments import copies
from ascent.systems.off_policy import Models
from ascent.training.processes import Processes
from ascent.worlds.gym import Environments
from ascent.worlds.regulated import Design, Regulated


@dataclass(frozen=True)
class Controller:
    """Linear control of a plant.

    Attributes:
        a, b: the model s+ = A s + B u.
        problem, law: predictive control as a program, and its explicit solution.
        quality: Q1, Q2, Q3 of the critic.
    """

    a: Matrix
    b: Matrix
    problem: Program
    law: PiecewiseAffine
    quality: tuple[Matrix, Matrix, Matrix]


def controller(design: Design, method: Method) -> Controller:
    """Everything that is computed before learning, out of a plant's design and the method's parameters."""
    sizes = method.parameters
    state, control = np.zeros(len(design.state_cost)), np.zeros(len(design.control_cost))
    a, b = discretise(*linearise(design.rates, state, control), design.seconds)
    costs = design.state_cost, design.control_cost
    value = riccati(a, b, *costs)
    limits = design.control_limits, design.state_limits
    problem = program(a, b, *costs, int(sizes["horizon"]), *limits, design.path_limits, value)
    discount = float(sizes["discount"])
    judged = riccati(a, b, *costs, discount) if sizes["riccati"] == "discounted" else value
    law = explicit(problem, sizes["outside"], search=sizes["search"])
    return Controller(a, b, problem, law, quality(a, b, *costs, judged, discount))


def design_of(environments: Environments) -> Design:
    """Of the plant. Raises BadConfig where the environment has none."""
    plant = environments.vector.envs[0].unwrapped
    if not isinstance(plant, Regulated):
        raise BadConfig(
            f"yann_rl needs an environment with a linear model, a subclass of ascent.worlds.regulated.Regulated; "
            f"{environments.name!r} is none. Take ascent/ClippedPendulum-v0 or ascent/SafetyReactor-v0."
        )
    return plant.design()


def models(config: ControlConfig, method: Method, environments: Environments) -> Models:
    """Actor and critic from linear control, their targets copies of them."""
    design, sizes = design_of(environments), method.parameters
    known = controller(design, method)
    bound, zero = float(sizes["initial"]), sizes["zero"]
    limits = design.control_limits
    actor = AffineActor(
        known.law, limits, int(sizes["width"]), bound, zero, config.seed, exploration=float(sizes["exploration"])
    )
    width = int(sizes["critic_width"])
    critic: QuadraticCritic | Critics
    if sizes["critic"] == "quadratic":
        critic = QuadraticCritic(known.quality, limits, width, bound, zero, config.seed)
    else:
        critic = Critics(environments.observation_size, len(limits[0]), 1, (width, width), "tanh", config.seed)
    targets = (copy.deepcopy(one).requires_grad_(False) for one in (critic, actor))
    return Models(actor, critic, *targets)  # type: ignore[arg-type]


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The off-policy assembly, in an environment with a design.

    Raises:
        BadConfig: the world is no such environment, or an option has no meaning here.
    """
    refuse(config, method)
    return off_policy.build(config, method, processes, models)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where the world is no plant with a design, or an option has no meaning."""
    if not isinstance(config, ControlConfig):
        raise BadConfig("yann_rl controls a plant; give --env, for example --env ascent/ClippedPendulum-v0.")
    if config.hidden is not None:
        raise BadConfig("hidden is no choice of yann_rl runs; --set width=16 critic_width=64 are its layers.")
    tried = copies(config, 1)
    try:
        design_of(tried)
    finally:
        tried.close()
    off_policy.refuse(config, method)
