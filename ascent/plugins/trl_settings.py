"""What must hold before `AscentTrainer` starts: the version of TRL, the method's needs, the arguments."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping
from typing import Any

from packaging.version import Version

from ascent.core.method import Method
from ascent.core.plan import Adam, Linear, Number
from ascent.core.registry import method as build_method
from ascent.methods.capo import mirrored
from ascent.plugins.support import TRL, obstacles

TESTED = "1.16"

log = logging.getLogger(__name__)

OF_ITS_OWN_LOSS = (
    *("loss_type", "epsilon", "epsilon_high", "delta", "beta", "scale_rewards", "importance_sampling_level"),
    *("multi_objective_aggregation", "off_policy_mask_threshold", "use_bias_correction_kl", "top_entropy_quantile"),
    *("entropy_coef", "use_adaptive_entropy", "sapo_temperature_pos", "sapo_temperature_neg"),
    *("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
)
"""Fields of GRPOConfig that only TRL's own loss reads."""


def guard(installed: str) -> None:
    """Refuse a TRL that is older than the tested one, warn of a newer one."""
    found, tested = Version(installed), Version(TESTED)
    if found < tested:
        raise ImportError(f"ascent.plugins.trl needs trl >= {TESTED}; {installed} is installed. pip install -U trl")
    if found.release[:2] > tested.release[:2]:
        warnings.warn(
            f"ascent.plugins.trl is tested with trl {TESTED}.x; {installed} is installed, whose private methods may "
            "differ. Compare a short run, or pin trl.",
            stacklevel=3,
        )


def refuse_unfed(method: Method) -> None:
    """Raise ValueError where TRL cannot feed the method, whatever its arguments are."""
    reasons = obstacles(method, TRL)
    if reasons:
        raise ValueError(f"method {method.slug!r} cannot learn inside TRL: {'; '.join(reasons)}.")


def refuse(method: Method, args: Any, scorers: Mapping[str, object]) -> None:
    """Raise ValueError where TRL cannot feed the method as `args` are."""
    refuse_unfed(method)
    asked = method.needs & TRL.on_request.keys()
    for name in sorted(asked - scorers.keys()):
        raise ValueError(f"method {method.slug!r} needs {name}; give {TRL.on_request[name]}.")
    for name in sorted(scorers.keys() - asked):
        raise ValueError(f"method {method.slug!r} does not read {name!r}; it takes {sorted(asked) or 'no scorers'}.")
    defaults = {item.name: item.default for item in dataclasses.fields(args)}
    for name in OF_ITS_OWN_LOSS:
        if getattr(args, name) != defaults[name]:
            raise ValueError(
                f"{name}={getattr(args, name)!r} belongs to TRL's own loss, which method {method.slug!r} replaces; "
                f"leave it at {defaults[name]!r} and give the method's parameters: {', '.join(method.parameters)}."
            )
    _refuse_broken_groups(method, args)
    wanted = plan(method, args.gradient_accumulation_steps)
    got = {name: getattr(args, name) for name in wanted}
    if got != wanted:
        log.warning(
            "method %r walks a generation as %s, and these arguments say %s; GRPOConfig(**plan(method)) follows it.",
            method.slug,
            wanted,
            got,
        )


def _refuse_broken_groups(method: Method, args: Any) -> None:
    """Raise ValueError where a group would be torn that the method needs whole."""
    rows, group = args.per_device_train_batch_size, args.num_generations
    if method.keep_together == "group":
        sizes = {"per_device_train_batch_size": (rows, group)}
        if args.eval_strategy != "no":
            sizes["per_device_eval_batch_size"] = (args.per_device_eval_batch_size, args.num_generations_eval or group)
        for name, (size, whole) in sizes.items():
            if size % whole:
                raise ValueError(
                    f"method {method.slug!r} compares the responses of a group, so {name} must be a multiple of "
                    f"num_generations={whole}; got {size}."
                )
    elif method.plan.unit == "group" and args.gradient_accumulation_steps % args.steps_per_generation:
        update = rows * args.gradient_accumulation_steps
        if update % group or args.steps_per_generation % args.gradient_accumulation_steps:
            raise ValueError(
                f"method {method.slug!r} learns from whole groups, so per_device_train_batch_size * "
                f"gradient_accumulation_steps must be a multiple of num_generations={group}, and steps_per_generation "
                f"of gradient_accumulation_steps; got {update} and {args.steps_per_generation}."
            )


def dealt_together(method: Method) -> bool:
    """Whether a method's updates must hold whole groups."""
    return method.keep_together == "group" or method.plan.unit == "group"


def plan(method: str | Method, gradient_accumulation_steps: int = 1) -> dict[str, int]:
    """The arguments of GRPOConfig that walk a generation as the method's plan does: passes and updates a pass.

    `GRPOConfig(per_device_train_batch_size=16, **plan("bapo"), ...)`
    """
    built = method if isinstance(method, Method) else build_method(method)
    return {
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "steps_per_generation": built.plan.minibatches * gradient_accumulation_steps,
        "num_iterations": built.plan.passes,
    }


def with_step_of(method: Method, args: Any) -> Method:
    """The method with the optimiser of `args`, for parts that model its step (capo)."""
    rates: dict[str, Number] = {"constant": args.learning_rate, "linear": Linear(args.learning_rate, 0.0)}
    name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    step = Adam(
        rates.get(name, args.learning_rate),
        (args.adam_beta1, args.adam_beta2),
        args.adam_epsilon,
        args.weight_decay,
        args.max_grad_norm,
    )
    changed = mirrored(method.replace(step=step), args.temperature)
    if changed.parts != method.parts and (name not in rates or args.warmup_steps):
        raise ValueError(
            f"method {method.slug!r} models the optimiser's step, for which lr_scheduler_type must be constant or "
            f"linear and warmup_steps 0; got {name!r} and {args.warmup_steps}."
        )
    return changed
