"""Isolate x: an equation a x + b = c, and what may be done to both sides of it.

Registered as "ascent/LinearEquation-v0". a, b and c start as whole numbers from 1 to 9 of either sign.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

ADD, SUBTRACT, DIVIDE, MULTIPLY = range(4)
NUMBERS = 9
LARGEST = Fraction(float(np.finfo(np.float32).max))


class LinearEquation(gymnasium.Env[NDArray[np.float32], NDArray[np.int64]]):
    """An action is (what is done to both sides, the number less 1, whether the signs are changed instead).

    The reward is 1 - 0.9 t / steps when the left side is x, t steps after the first, and the episode ends there; it
    ends with -1 when a coefficient outgrows a float32, and is truncated after `steps`.

    Args:
        steps: most of an episode, >= 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(self, steps: int = 50) -> None:
        if steps < 1:
            raise ValueError(f"steps must be >= 1; got {steps}.")
        self.steps = steps
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.MultiDiscrete([4, NUMBERS, 2])
        # Exact, so that a number divided and multiplied by 7 is itself again.
        self.coefficients = [Fraction(1), Fraction(1), Fraction(1)]
        self._time = 0

    def _seen(self) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.clip(
            [float(number) for number in self.coefficients], -float(LARGEST), float(LARGEST)
        ).astype(np.float32)
        return found

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        digits = self.np_random.integers(1, NUMBERS + 1, 3)
        signs = self.np_random.choice([-1, 1], 3)
        self.coefficients = [Fraction(int(number)) for number in digits * signs]
        self._time = 0
        return self._seen(), {}

    def step(self, action: NDArray[np.int64]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        kind, number, negate = int(action[0]), int(action[1]) + 1, bool(action[2])
        a, b, c = self.coefficients
        if negate:
            a, b, c = -a, -b, -c
        elif kind == ADD:
            b, c = b + number, c + number
        elif kind == SUBTRACT:
            b, c = b - number, c - number
        elif kind == DIVIDE:
            a, b, c = a / number, b / number, c / number
        else:
            a, b, c = a * number, b * number, c * number
        self.coefficients = [a, b, c]
        solved = a == 1 and b == 0
        outgrown = any(abs(each) > LARGEST for each in self.coefficients)
        reward = 1.0 - 0.9 * self._time / self.steps if solved else -1.0 if outgrown else 0.0
        self._time += 1
        ended = solved or outgrown
        return self._seen(), reward, ended, not ended and self._time >= self.steps, {"success": solved}


def register() -> None:
    """Add the equation to Gymnasium's registry; a second call changes nothing."""
    if "ascent/LinearEquation-v0" not in gymnasium.registry:
        gymnasium.register("ascent/LinearEquation-v0", entry_point="ascent.worlds.linear_equation:LinearEquation")


register()
