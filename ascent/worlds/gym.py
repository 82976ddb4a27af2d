"""Any Gymnasium environment, several at once, with every episode seeded and no step lost at a reset.

The vector environment never resets by itself: the step that ends an episode returns the true final
observation, and `reset` then starts the next episode from a given seed. So there are no dummy
transitions, and an environment is restored by (episode seed, actions since the reset).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

# What to install for environments whose packages are optional, by a word in their entry point or name.
EXTRAS: Mapping[str, str] = {
    "mujoco": 'pip install "gymnasium[mujoco]"',
    "box2d": 'pip install "gymnasium[box2d]"',
    "classic_control": 'pip install "gymnasium[classic-control]"',
    "toy_text": 'pip install "gymnasium[toy-text]"',
    "ale": "pip install ale-py, then pass the module in the id: 'ale_py:ALE/Pong-v5'",
}


@dataclass(frozen=True)
class ActionSpace:
    """The actions of one environment in a form that a policy head is built from.

    Attributes:
        kind: "discrete" (one choice), "multi_discrete" (several), or "box" (real numbers).
        sizes: choices of each discrete part; () for a box.
        start: first number of each discrete part, added before the environment sees it.
        low, high: [A] bounds of a box, possibly infinite; empty for discrete ones.
        shape: of a box action as the environment wants it.
    """

    kind: Literal["discrete", "multi_discrete", "box"]
    sizes: tuple[int, ...]
    start: tuple[int, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    shape: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """Length of one action vector: parts of a discrete action, numbers of a box."""
        return len(self.sizes) if self.kind != "box" else len(self.low)


def action_space(space: spaces.Space[Any], name: str = "the environment") -> ActionSpace:
    """Describe `space`. Raises ValueError for spaces other than Discrete, MultiDiscrete (1-d) and float Box."""
    none = np.zeros(0, np.float32)
    if isinstance(space, spaces.Discrete):
        return ActionSpace("discrete", (int(space.n),), (int(space.start),), none, none, ())
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        sizes, start = tuple(map(int, space.nvec)), tuple(map(int, space.start))
        return ActionSpace("multi_discrete", sizes, start, none, none, space.nvec.shape)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
        return ActionSpace("box", (), (), low, high, space.shape)
    raise ValueError(
        f"action space of {name} must be Discrete, MultiDiscrete with one dimension or a floating-point Box; got "
        f"{space}. Wrap the environment with gymnasium.wrappers.TransformAction to offer one of these."
    )


@runtime_checkable
class Limited(Protocol):
    """An environment that counts the steps beyond a limit, since it was made."""

    violations: int


def _known() -> list[str]:
    import ascent.worlds.distracted
    import ascent.worlds.door_key
    import ascent.worlds.linear_equation
    import ascent.worlds.noisy
    import ascent.worlds.regulated
    import ascent.worlds.submodular
    import ascent.worlds.toy  # noqa: F401  (all register environments)

    return sorted(gymnasium.registry)


def make(environment: str, flatten: bool = False, codes: bool = False, /, **arguments: Any) -> gymnasium.Env[Any, Any]:
    """One environment by its Gymnasium id, with observations that an MLP can read (a float vector).

    Args:
        environment: id such as "CartPole-v1", or "module:id" to import the module that registers it.
        flatten: flatten Dict and Tuple observations as gymnasium.wrappers.FlattenObservation does.
        codes: leave Discrete and MultiDiscrete observations as codes.
        arguments: passed to `gymnasium.make`.

    Raises:
        ValueError: unknown id (the nearest one is suggested) or an unsupported observation space.
        ImportError: the environment's optional package is absent; the message says what to install.
    """
    known = _known()
    if ":" not in environment and environment not in known:
        names = {name.lower(): name for name in known}
        bare = {name.rsplit("-v", 1)[0].lower(): name for name in known}
        wanted = environment.lower()
        near = difflib.get_close_matches(wanted, [*bare, *names], n=1, cutoff=0.5)
        # The newest version of a name given without one, else the nearest spelling.
        found = bare.get(wanted) or (bare.get(near[0]) or names.get(near[0]) if near else None)
        hint = f" Did you mean {found!r}?" if found else ""
        extra = f" Atari games need a package: {EXTRAS['ale']}." if environment.startswith("ALE/") else ""
        raise ValueError(
            f"env must be a registered Gymnasium id; got {environment!r}.{hint}{extra} An id of a package of yours "
            "is written 'module:id', so that the module is imported first."
        )
    try:
        made = gymnasium.make(environment, disable_env_checker=True, **arguments)
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        entry = str(gymnasium.registry[environment].entry_point) if environment in gymnasium.registry else environment
        fix = next((fix for word, fix in EXTRAS.items() if word in entry.lower()), "install the package that it names")
        raise ImportError(f"env {environment!r} cannot be made: {error} To mend it: {fix}.") from error
    return readable(coded(made) if codes else made, flatten, environment)


def readable(environment: gymnasium.Env[Any, Any], flatten: bool, name: str) -> gymnasium.Env[Any, Any]:
    """The environment with vector observations: discrete ones become one-hot, Dict and Tuple on request."""
    space = environment.observation_space
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return environment
    simple = isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    if not simple and not flatten:
        raise ValueError(
            f"observation space of {name!r} must be Box, Discrete, MultiDiscrete or MultiBinary; got {space}. "
            "Pass flatten=True to turn Dict and Tuple observations into one vector."
        )
    if not space.is_np_flattenable:
        raise ValueError(f"observation space of {name!r} cannot be flattened into a vector: {space}.")
    return gymnasium.wrappers.FlattenObservation(environment)


def coded(environment: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment with Discrete and MultiDiscrete observations as vectors of codes 0, 1, ... instead of one-hot."""
    space = environment.observation_space
    if isinstance(space, spaces.Discrete):
        sizes, start = np.array([space.n]), np.array([space.start])
    elif isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        sizes, start = space.nvec, space.start
    else:
        return environment
    box = spaces.Box(np.zeros(len(sizes), np.float32), (sizes - 1).astype(np.float32))
    return gymnasium.wrappers.TransformObservation(
        environment, lambda seen: (np.asarray(seen).reshape(-1) - start).astype(np.float32), box
    )


class Environments:
    """Several copies of one environment, stepped together.

    Args:
        environment: a Gymnasium id, or a function that makes one environment.
        count: copies, >= 1.
        squashed: policy actions lie in (-1, 1) and are scaled to the bounds; else they are clipped to them.
        flatten: see `make`.
        arguments: passed to `gymnasium.make`.
        codes: Discrete and MultiDiscrete observations stay codes, for policies that can ask for a category.

    Attributes:
        actions: the ActionSpace; observation_size: numbers in an observation vector.
        categorical: [O] True where a number is the code of a category.
    """

    def __init__(
        self,
        environment: str | Callable[[], gymnasium.Env[Any, Any]],
        count: int = 1,
        squashed: bool = False,
        flatten: bool = False,
        arguments: Mapping[str, Any] | None = None,
        codes: bool = False,
    ) -> None:
        if count < 1:
            raise ValueError(f"environments must be an integer >= 1; got {count!r}.")
        self.name = environment if isinstance(environment, str) else getattr(environment, "__name__", "environment")

        def build() -> gymnasium.Env[Any, Any]:
            if isinstance(environment, str):
                return make(environment, flatten, codes, **(arguments or {}))
            made = environment()
            return readable(coded(made) if codes else made, flatten, self.name)

        self.vector = SyncVectorEnv([build] * count, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        self.count = count
        self.squashed = squashed
        self.actions = action_space(self.vector.single_action_space, self.name)
        shape = self.vector.single_observation_space.shape
        assert shape is not None
        self.observation_size = int(shape[0])
        own = self.vector.envs[0].unwrapped.observation_space
        kept = codes and isinstance(own, spaces.Discrete | spaces.MultiDiscrete)
        self.categorical = (kept,) * self.observation_size
        bounded = bool(np.isfinite(self.actions.low).all() and np.isfinite(self.actions.high).all())
        if squashed and not (self.actions.kind == "box" and bounded):
            raise ValueError(f"squashed actions need a Box with finite bounds; {self.name} has {self.actions}.")
        self._observation = np.zeros((count, *shape), self.vector.single_observation_space.dtype)
        self._over = [True] * count
        self._start = np.asarray(self.actions.start, np.int64)
        self._half = (self.actions.high - self.actions.low) / 2 if bounded else None

    def reset(self, seeds: Sequence[int | None], which: NDArray[np.bool_]) -> NDArray[Any]:
        """Start a new episode where `which` [E] is True, each from its seed; observations [E, O] of all.

        The array returned is overwritten by the next `step` or `reset`.
        """
        for place in np.flatnonzero(which):
            self._observation[place], _ = self.vector.envs[place].reset(seed=seeds[place], options={})
            self._over[place] = False
        return self._observation

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """One step of all: true successors [E, O], rewards, terminated, truncated [E].

        The copies are stepped here, one after the other: `SyncVectorEnv.step` does the same and gathers what an
        environment says besides, which nobody reads and which costs as much as a small environment's step.

        Args:
            action: [E] int (discrete), [E, P] int (multi-discrete) or [E, A] float (box) as the policy
                drew it. Box actions are clipped (or scaled) here; the recorded one stays as drawn.

        Raises:
            RuntimeError: the episode of a copy is over and `reset` has not begun its next one.
        """
        native = self.native(action)
        # Plain integers pass the environments' own action checks several times faster than numpy's.
        sent = native.tolist() if self.actions.kind == "discrete" else native
        if any(self._over):
            raise RuntimeError(
                f"copy {self._over.index(True)} of {self.name} has no running episode; call reset first."
            )
        rewards, terminated, truncated = [], [], []
        for place, environment in enumerate(self.vector.envs):
            self._observation[place], reward, over, cut, _ = environment.step(sent[place])
            rewards.append(reward)
            terminated.append(over)
            truncated.append(cut)
            self._over[place] = bool(over or cut)
        return self._observation, np.array(rewards, np.float64), np.array(terminated, bool), np.array(truncated, bool)

    def native(self, action: NDArray[Any]) -> NDArray[Any]:
        """Policy actions as the environment takes them."""
        space = self.actions
        if space.kind == "discrete":
            return action + self._start[0]
        if space.kind == "multi_discrete":
            return action + self._start
        if self.squashed:
            scaled = space.low + (action + 1) * self._half
        else:
            scaled = np.minimum(np.maximum(action, space.low), space.high)
        return np.asarray(scaled).reshape(len(action), *space.shape)

    def replay(self, place: int, actions: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Step copy `place`, just reset, through recorded policy actions; its last observation [O].

        Raises:
            ValueError: the episode ends on the way, so the environment is not a function of seed and actions.
        """
        if not actions:
            raise ValueError("actions must hold at least one action; a copy without any needs no replay.")
        environment = self.vector.envs[place]
        for number, action in enumerate(actions):
            native = self.native(np.asarray(action)[None])
            sent = native.tolist() if self.actions.kind == "discrete" else native
            observation, _, terminated, truncated, _ = environment.step(sent[0])
            if terminated or truncated:
                raise ValueError(
                    f"{self.name} ended at replayed action {number + 1} of {len(actions)}, but had not when recorded; "
                    "an environment can be resumed only if the seed of its reset and the actions decide everything."
                )
        return np.asarray(observation)

    def violations(self) -> int | None:
        """Steps beyond a limit of all copies since they were made; None where the environment has no limit."""
        copies = [environment.unwrapped for environment in self.vector.envs]
        counts = [environment.violations for environment in copies if isinstance(environment, Limited)]
        return sum(counts) if counts else None

    def close(self) -> None:
        """Release windows and simulators."""
        self.vector.close()
