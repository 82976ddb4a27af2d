"""Configurations of a run: typed, complete, refused when wrong before anything heavy loads."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ascent.core.method import Method
from ascent.core.registry import card
from ascent.core.registry import method as build_method
from ascent.systems.stepwise import speaks_of_steps, stepwise


class BadConfig(ValueError):
    """An argument is outside its range; the message names it, its value, the range and the mend."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has."""

    method: str
    """Slug of the method; `ascent methods` lists them."""
    set: tuple[str, ...] = ()
    """Parameters of the method as name=value (JSON values): --set clip_low=0.2 clip_high=0.28"""
    steps: int = 60
    """Rounds of acting and learning, >= 1."""
    seed: int = 0
    """Of every draw of the run."""
    output: str | None = None
    """Run folder; runs/<method>-<world>-seed<seed> when not given. It must not exist."""
    learning_rate: float | None = None
    """Of the optimiser, > 0; the method's (or the embedded model's) default when not given."""
    passes: int | None = None
    """Walks over a collection, >= 1; the method's default when not given."""
    minibatches: int | None = None
    """Updates per pass, >= 1; the method's default when not given."""
    micro_rows: int | None = None
    """Most rows in one forward, >= 1, for memory only: it changes no result. Default: a whole update."""
    evaluate_every: int = 10
    """Steps between two held-out evaluations (also before the first and after the last); 0 is never."""
    save_every: int = 20
    """Optimiser steps between two checkpoints; 0 saves only at the end and when interrupted."""
    keep: int = 2
    """Newest checkpoints that stay, >= 1."""
    threads: int = 0
    """Torch threads, 0 leaves torch's choice."""
    tensorboard: bool = True
    """Write TensorBoard event files."""
    wandb: str | None = None
    """Weights & Biases project (extra `wandb`)."""
    quiet: bool = False
    """No progress on the terminal."""

    def __post_init__(self) -> None:
        typed(self)
        for name in ("steps", "keep"):
            positive(self, name)
        for name in ("passes", "minibatches", "micro_rows", "learning_rate"):
            if getattr(self, name) is not None:
                positive(self, name)
        for name in ("evaluate_every", "save_every", "threads"):
            if getattr(self, name) < 0:
                raise BadConfig(f"{name} must be >= 0; got {getattr(self, name)}.")
        card(self.method)

    def parameters(self) -> dict[str, Any]:
        """The method's keyword arguments out of `set`."""
        return named_values("set", self.set, "--set clip_low=0.2")

    def composed(self) -> Method:
        """The method with this run's parameters, plan and learning rate."""
        try:
            method = build_method(self.method, **self.parameters())
        except TypeError as error:
            raise BadConfig(f"set: {error}") from error
        return self.applied(method)

    def applied(self, method: Method) -> Method:
        """A method with this run's plan and learning rate."""
        plan = {name: getattr(self, name) for name in ("passes", "minibatches") if getattr(self, name) is not None}
        step = (
            method.step
            if self.learning_rate is None
            else dataclasses.replace(method.step, learning_rate=self.learning_rate)
        )
        return method.replace(plan=dataclasses.replace(method.plan, **plan), step=step)

    @property
    def world(self) -> str:
        """Short name of the world, for the run folder."""
        raise TypeError("RunConfig is abstract; use LanguageConfig or ControlConfig.")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output or f"runs/{self.method}-{self.world}-seed{self.seed}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the family; `from_json` reads them back."""
        family = "language" if isinstance(self, LanguageConfig) else "control"
        return {"family": family, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(RunConfig):
    """A language model learns a text task."""

    task: str = "arithmetic"
    """arithmetic, sorting, countdown, or reasoning_gym/<data set>."""
    model: str = "embedded"
    """`embedded` (about 1M parameters, built and warmed up here), a local folder, or a Hugging Face id."""
    data: str | None = None
    """Own prompts instead of a task: a JSONL file or a saved Hugging Face data set with a `prompt` column."""
    scored: str | None = None
    """Recorded responses to learn from instead of fresh ones: JSONL of prompt, completions, scores."""
    reward: tuple[str, ...] = ()
    """Own rewards as file.py:function, TRL's signature; needed with --data."""
    reward_weights: tuple[float, ...] = ()
    """One weight per reward; all 1 when not given."""
    reward_timeout: float = 60.0
    """Seconds after which a reward function counts as hanging, > 0."""
    batch: int = 256
    """Completions per step, a multiple of group_size."""
    group_size: int = 8
    """Completions per prompt, >= 1."""
    max_new_tokens: int | None = None
    """Longest completion; the task's own when not given."""
    temperature: float = 1.0
    """Of sampling, > 0; log-probs are of the same distribution."""
    top_p: float = 1.0
    """Nucleus kept in sampling, in (0, 1]."""
    top_k: int = 0
    """Most likely tokens kept in sampling, 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion."""
    refill: int = 4
    """Further acts per step when a method refuses rows (dynamic sampling), >= 0."""
    lora_rank: int = 0
    """Rank of LoRA adapters (extra `peft`), 0 trains all weights."""
    warm_up_steps: int = 300
    """Supervised steps of the embedded model on partly wrong solutions, >= 0; cached."""
    held_out: int = 128
    """Held-out prompts, >= 1."""
    samples: int = 4
    """Completions per held-out prompt, >= 1, at the run's temperature."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Of a loaded model's weights."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:<number>; several processes take one GPU each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "group_size", "held_out", "samples", "temperature", "reward_timeout"):
            positive(self, name)
        for name in ("top_k", "refill", "lora_rank", "warm_up_steps"):
            if getattr(self, name) < 0:
                raise BadConfig(f"{name} must be >= 0; got {getattr(self, name)}.")
        if self.max_new_tokens is not None:
            positive(self, "max_new_tokens")
        if not 0 < self.top_p <= 1:
            raise BadConfig(f"top_p must be in (0, 1]; got {self.top_p}.")
        if self.batch % self.group_size:
            below = self.batch // self.group_size * self.group_size or self.group_size
            raise BadConfig(
                f"group_size must divide batch; got group_size={self.group_size}, batch={self.batch}. "
                f"Take batch={below} or another group_size."
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise BadConfig(f"device must be auto, cpu, cuda or cuda:<number>; got {self.device!r}.")
        if self.data is not None and not self.reward:
            raise BadConfig("data needs at least one reward; give --reward my_rewards.py:function.")
        if self.reward_weights and len(self.reward_weights) != len(self.reward):
            raise BadConfig(
                f"reward_weights needs one number per reward; got {len(self.reward_weights)} "
                f"for {len(self.reward)} rewards."
            )

    @property
    def world(self) -> str:
        return Path(self.data).stem if self.data else self.task.replace("/", "-")


@dataclass(frozen=True, kw_only=True)
class ControlConfig(RunConfig):
    """A controller learns in a Gymnasium environment."""

    env: str
    """Any Gymnasium id."""
    env_set: tuple[str, ...] = ()
    """Arguments of the environment as name=value (JSON values): --env-set gravity=-9 enable_wind=true"""
    environments: int = 4
    """Copies stepped side by side, >= 1."""
    horizon: int | None = None
    """Steps of each copy per collection, >= 1; 128 for discrete actions, 2048 / environments for continuous,
    64 / environments for sac, td3, ddpg."""
    hidden: tuple[int, ...] | None = None
    """Widths of the actor's and of the critic's hidden layers; 64 64 when not given, the paper's for sac, td3, ddpg."""
    recurrent: bool = False
    """A GRU between the layers; updates then deal whole streams."""
    policy: Literal["mlp", "trees"] | None = None
    """mlp, or trees: an ensemble that grows by one tree an update. Networks when not given, trees for gbrl."""
    normalise_observation: bool | None = None
    """Running mean and variance of observations; on for continuous actions when not given."""
    normalise_reward: bool | None = None
    """Running scale of returns; on for continuous actions when not given."""
    episodes: int = 20
    """Held-out episodes per evaluation, >= 1, deterministic actions."""
    evaluate_every: int = 20
    save_every: int = 1000
    steps: int = 200
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("environments", "episodes"):
            positive(self, name)
        if self.horizon is not None:
            positive(self, "horizon")
        if self.hidden is not None and (not self.hidden or min(self.hidden) < 1):
            raise BadConfig(f"hidden must be one or more widths >= 1; got {self.hidden}.")
        if self.policy == "trees" and (self.recurrent or self.hidden is not None):
            raise BadConfig("policy trees has no layers; drop recurrent and hidden, or take policy mlp.")
        self.env_arguments  # noqa: B018  (refuses what is no name=value)

    def applied(self, method: Method) -> Method:
        if speaks_of_steps(method):
            try:
                method = stepwise(method, self.parameters())
            except ValueError as error:
                raise BadConfig(f"set: {error}") from error
        return super().applied(method)

    @property
    def world(self) -> str:
        return self.env.replace("/", "-")

    @property
    def env_arguments(self) -> dict[str, Any]:
        """The environment's keyword arguments out of `env_set`."""
        return named_values("env_set", self.env_set, "--env-set gravity=-9")


Config = LanguageConfig | ControlConfig
FAMILIES: Mapping[str, type[LanguageConfig] | type[ControlConfig]] = {
    "language": LanguageConfig,
    "control": ControlConfig,
}


def typed(config: object) -> None:
    """Raise BadConfig where a field holds another kind of value than it is declared with."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _fits(value, kind):
            shown = str(kind).replace("typing.", "") if get_args(kind) else kind.__name__
            raise BadConfig(f"{name} must be {shown}; got {value!r} of type {type(value).__name__}.")


def _fits(value: Any, kind: Any) -> bool:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return value in inner
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if inner:
        return any(_fits(value, one) for one in inner)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


PYTHON: Mapping[str, bool | None] = {"True": True, "False": False, "None": None}


def named_values(field: str, entries: tuple[str, ...], example: str) -> dict[str, Any]:
    """Keyword arguments out of "name=value" entries: JSON values, or Python's True, False, None; else strings."""
    found: dict[str, Any] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals or not name:
            raise BadConfig(f"{field} takes name=value; got {entry!r}. Example: {example}")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = PYTHON.get(text, text)
    return found


def positive(config: object, name: str) -> None:
    """Raise BadConfig unless the field is a finite number above 0."""
    number = getattr(config, name)
    if not number > 0 or not math.isfinite(number):
        raise BadConfig(f"{name} must be > 0; got {number}.")


def make(family: str, values: Mapping[str, Any]) -> Config:
    """A configuration from plain values; unknown keys are refused with the nearest name."""
    if family not in FAMILIES:
        raise BadConfig(f"family must be one of {', '.join(FAMILIES)}; got {family!r}.")
    kind = FAMILIES[family]
    names = [item.name for item in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            other = next(
                (key for key, other in FAMILIES.items() if name in {f.name for f in dataclasses.fields(other)}), None
            )
            hint = f" Did you mean {near[0]!r}?" if near else f" It belongs to {other} runs." if other else ""
            raise BadConfig(f"unknown configuration key {name!r} of a {family} run.{hint}")
    tidy = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return kind(**tidy)
    except TypeError as error:
        raise BadConfig(f"{family} configuration: {error}") from error


def read(path: Path) -> Config:
    """The configuration of a JSON file, such as a run folder's config.json."""
    try:
        values = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise BadConfig(f"config {path} cannot be read: {error}") from error
    if not isinstance(values, dict) or "family" not in values:
        raise BadConfig(f"config {path} must be a JSON object with a `family` of {', '.join(FAMILIES)}.")
    family = values.pop("family")
    return make(family, values)
