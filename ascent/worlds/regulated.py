"""Plants to be held at a set point, with limits that must not be passed: a pendulum and a chemical reactor.

Registered as "ascent/ClippedPendulum-v0" and "ascent/SafetyReactor-v0". Observations and actions are deviations from
the set point, rewards are minus a quadratic cost of them, `violations` counts the steps beyond the limit since the
environment was made. Each has a `design()`: what linear control needs to know of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

PI = math.pi


@dataclass(frozen=True)
class Design:
    """A plant as linear control sees it, all numbers as deviations from the set point.

    Attributes:
        rates: ds/dt of state [n] and input [m], differentiable, 0 at (0, 0).
        seconds: how long an input is held, in the time unit of `rates`.
        state_cost, control_cost: Q [n, n], R [m, m] of the cost s'Qs + u'Ru of a step.
        state_limits: (low, high), [n] each, of the states that a controller is designed for.
        control_limits: (low, high), [m] each.
        path_limits: whether predicted states must keep the limits as well.
    """

    rates: Callable[[Tensor, Tensor], Tensor]
    seconds: float
    state_cost: NDArray[np.float64]
    control_cost: NDArray[np.float64]
    state_limits: tuple[NDArray[np.float64], NDArray[np.float64]]
    control_limits: tuple[NDArray[np.float64], NDArray[np.float64]]
    path_limits: bool = True


class Regulated(gymnasium.Env[Any, Any], ABC):
    """What the plants share. Their own: `design`, `_start`, `_advance`, `_beyond`.

    Args:
        low, high: of observations.
        control_limits: of actions; others are clipped.
        stop: a step beyond the limit ends the episode and costs `penalty` more.
        penalty: see `stop`, >= 0.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(
        self,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        control_limits: tuple[NDArray[np.float64], NDArray[np.float64]],
        stop: bool,
        penalty: float,
    ) -> None:
        if not penalty >= 0:
            raise ValueError(f"penalty must be >= 0; got {penalty!r}.")
        self.observation_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self.action_space = spaces.Box(*(end.astype(np.float32) for end in control_limits), dtype=np.float32)
        self.stop, self.penalty = stop, penalty
        self.violations = 0
        self.state = np.zeros(len(low))
        self._plan = self.design()

    @abstractmethod
    def design(self) -> Design:
        """What linear control needs to know."""

    @abstractmethod
    def _start(self) -> NDArray[np.float64]:
        """A first state, with draws from `self.np_random`."""

    @abstractmethod
    def _advance(self, state: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
        """The state after one step under a control within its limits."""

    @abstractmethod
    def _beyond(self, state: NDArray[np.float64]) -> bool:
        """Whether the state violates a limit."""

    def _seen(self) -> NDArray[np.float32]:
        box = self.observation_space
        assert isinstance(box, spaces.Box)
        return np.minimum(np.maximum(self.state.astype(np.float32), box.low), box.high)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """`options={"state": ...}` chooses the start instead of drawing it."""
        super().reset(seed=seed)
        chosen = (options or {}).get("state")
        self.state = self._start() if chosen is None else np.array(chosen, np.float64)
        return self._seen(), {"violations": self.violations}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        low, high = self._plan.control_limits
        control = np.minimum(np.maximum(np.asarray(action, np.float64).reshape(len(low)), low), high)
        cost = self.state @ self._plan.state_cost @ self.state + control @ self._plan.control_cost @ control
        self.state = self._advance(self.state, control)
        beyond = self._beyond(self.state)
        self.violations += beyond
        over = beyond and self.stop
        return self._seen(), -float(cost) - self.penalty * over, over, False, {"violations": self.violations}


class ClippedPendulum(Regulated):
    """A pendulum held upright by a torque too weak to lift it: th'' = 3g/(2l) sin(th) + 3u/(m l^2).

    Gymnasium's Pendulum (g = 10, m = l = 1, dt = 0.05, |u| <= 2, |th'| <= 8, velocity first, cost
    th^2 + 0.1 th'^2 + 0.001 u^2), seen as (th, th') with th in [-pi, pi) from upright. It has fallen, which is the
    violation, beyond |th| = `fallen`; episodes go on.

    Args:
        spread: episodes begin at rest with th uniform in [-spread, spread], in (0, pi].
        fallen: angle, in (0, pi].
    """

    def __init__(self, spread: float = 0.5, fallen: float = PI / 2) -> None:
        for name, angle in (("spread", spread), ("fallen", fallen)):
            if not 0 < angle <= PI:
                raise ValueError(f"{name} must be in (0, pi]; got {angle!r}.")
        self.spread, self.fallen = spread, fallen
        high = np.array([PI, 8.0])
        super().__init__(-high, high, (np.array([-2.0]), np.array([2.0])), False, 0.0)

    def design(self) -> Design:
        """Horizon limits |th| <= 2, |th'| <= 8, on the path as well."""

        def rates(state: Tensor, control: Tensor) -> Tensor:
            return torch.stack((state[1], 15.0 * torch.sin(state[0]) + 3.0 * control[0]))

        box, force = np.array([2.0, 8.0]), np.array([2.0])
        return Design(rates, 0.05, np.diag([1.0, 0.1]), np.array([[0.001]]), (-box, box), (-force, force))

    def _start(self) -> NDArray[np.float64]:
        return np.array([self.np_random.uniform(-self.spread, self.spread), 0.0])

    def _advance(self, state: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
        speed = state[1] + (15.0 * math.sin(state[0]) + 3.0 * control[0]) * 0.05
        speed = min(max(speed, -8.0), 8.0)
        angle = (state[0] + speed * 0.05 + PI) % (2 * PI) - PI
        return np.array([angle, speed])

    def _beyond(self, state: NDArray[np.float64]) -> bool:
        return bool(abs(state[0]) > self.fallen)


class SafetyReactor(Regulated):
    """A stirred tank with an exothermic reaction, held at an unstable point near a temperature not to be passed.

        dC/dt = q/V (1 - C) - k C         k = 7.2e10 exp(-8750 / T)        C in mol/L, T in K, minutes
        dT/dt = q/V (350 - T) + 5e4/(rho c) k C + UA/(rho c V) (T_c - T)

    q = V = 100, rho c = 239, UA = 5e4; the input is the coolant's temperature T_c in [290, 312] K. The published
    reactor's feeds are not printed; the constants are those of pc-gym's stirred tank, whose coolant, [295, 302] K,
    cannot hold an unstable point.

    Args:
        target: steady temperature to hold, in [345, 349]: there the tank is unstable and the coolant can hold it.
        ceiling: temperature that must not be passed, above `target`.
        stop, penalty: as in `Regulated`.
        spread: episodes begin with the temperature uniform in target + [-8, 3] * spread and the concentration in
            0.05 * [-1, 1] * spread of its own, in (0, 1].
    """

    SECONDS = 0.1
    COOLANT = (290.0, 312.0)

    def __init__(
        self,
        target: float = 345.0,
        ceiling: float = 350.0,
        stop: bool = True,
        penalty: float = 1e5,
        spread: float = 1.0,
    ) -> None:
        if not 345.0 <= target <= 349.0:
            raise ValueError(f"target must be in [345, 349] K; got {target!r}.")
        if not ceiling > target:
            raise ValueError(f"ceiling must be above target, {target} K; got {ceiling!r}.")
        if not 0 < spread <= 1:
            raise ValueError(f"spread must be in (0, 1]; got {spread!r}.")
        self.target, self.ceiling, self.spread = target, ceiling, spread
        speed = 7.2e10 * math.exp(-8750.0 / target)
        self.concentration = 1.0 / (1.0 + speed)
        heat = (350.0 - target) + 5e4 / 239.0 * speed * self.concentration
        self.coolant = target - heat / (5e4 / 23900.0)
        box = np.array([1.0, 100.0])
        limits = tuple(np.array([end - self.coolant]) for end in self.COOLANT)
        self._limits = limits[0], limits[1]
        super().__init__(-box, box, self._limits, stop, penalty)

    def design(self) -> Design:
        """Limits of the designed-for states only; the ceiling is their upper temperature."""

        def rates(state: Tensor, control: Tensor) -> Tensor:
            return torch.stack(self._rates(state[0], state[1], control[0], torch.exp))

        low = np.array([-0.3, -20.0])
        high = np.array([0.3, self.ceiling - self.target])
        cost, effort = np.diag([100.0, 0.1]), np.array([[0.01]])
        return Design(rates, self.SECONDS, cost, effort, (low, high), self._limits, path_limits=False)

    def _rates(self, concentration: Any, temperature: Any, coolant: Any, exp: Callable[[Any], Any]) -> tuple[Any, Any]:
        amount, heat = self.concentration + concentration, self.target + temperature
        reaction = 7.2e10 * exp(-8750.0 / heat) * amount
        cooling = 5e4 / 23900.0 * (self.coolant + coolant - heat)
        return 1.0 - amount - reaction, 350.0 - heat + 5e4 / 239.0 * reaction + cooling

    def _start(self) -> NDArray[np.float64]:
        draw = self.np_random
        return self.spread * np.array([draw.uniform(-0.05, 0.05), draw.uniform(-8.0, 3.0)])

    def _advance(self, state: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
        """Four Runge-Kutta steps of a quarter each."""
        step = self.SECONDS / 4.0

        def rates(at: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.array(self._rates(float(at[0]), float(at[1]), float(control[0]), math.exp))

        for _ in range(4):
            one = rates(state)
            two = rates(state + step / 2 * one)
            three = rates(state + step / 2 * two)
            four = rates(state + step * three)
            state = state + step / 6 * (one + 2 * two + 2 * three + four)
        return state

    def _beyond(self, state: NDArray[np.float64]) -> bool:
        return bool(self.target + state[1] > self.ceiling)


def register() -> None:
    """Add the plants to Gymnasium's registry; a second call changes nothing."""
    for name, world, steps in (
        ("ascent/ClippedPendulum-v0", "ClippedPendulum", 200),
        ("ascent/SafetyReactor-v0", "SafetyReactor", 100),
    ):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"ascent.worlds.regulated:{world}", max_episode_steps=steps)


register()
