"""Any data set of reasoning-gym, with its own verifier. Imported only where such a task is asked for."""

from __future__ import annotations

import functools
import random
import string
from collections.abc import Sequence
from typing import Any

from ascent.core.random import key
from ascent.worlds.text.task import Example, Prompt, digits_changed, reserved

# Item numbers of a data set are its seeds; enough for every run.
SIZE = 2**31 - 1
TRIES = 1000


@functools.cache
def data_sets() -> tuple[str, ...]:
    """Names of all data sets of the installed reasoning-gym."""
    from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped,unused-ignore]

    return tuple(sorted(DATASETS))


class ReasoningGym:
    """One data set of reasoning-gym as an endless stream.

    Its demonstrations are the bare reference answers: reasoning-gym writes no steps.

    Args:
        data_set: its name there.
        seed: of the stream of problems.
        max_new_tokens: budget of an answer.
        settings: of the data set's own configuration.

    Raises:
        TypeError, ValueError: a setting that the data set refuses.
    """

    def __init__(self, data_set: str, seed: int = 0, max_new_tokens: int = 128, **settings: Any) -> None:
        import reasoning_gym  # type: ignore[import-untyped,unused-ignore]

        self.name, self.seed, self.max_new_tokens = data_set, seed, max_new_tokens
        try:
            self.items = reasoning_gym.create_dataset(data_set, seed=seed, size=SIZE, **settings)
        except (TypeError, AssertionError) as error:
            raise ValueError(
                f"reasoning-gym data set {data_set!r} refuses its settings {settings!r}: {error}."
            ) from error
        self._cached = functools.lru_cache(maxsize=4096)(self._find)

    def __repr__(self) -> str:
        """Equal for equal problems, so that a cache may be named by it."""
        return (
            f"ReasoningGym({self.name!r}, seed={self.seed}, {self.items.config}, max_new_tokens={self.max_new_tokens})"
        )

    @functools.cached_property
    def alphabet(self) -> str:
        """Printable characters and those of the first hundred problems."""
        first = (self.example(index) for index in range(100))
        return "".join(sorted(set(string.printable).union(*(set(f"{item.prompt}{item.answer}") for item in first))))

    def _find(self, stream: str, index: int, wanted: bool) -> Example:
        for attempt in range(TRIES):
            entry = self.items[key(self.seed, self.name, stream, index, attempt) % SIZE]
            if reserved(entry["question"]) == wanted:
                return Example(entry["question"], str(entry["answer"]), {"entry": entry})
        side = "held-out" if wanted else "training"
        raise ValueError(
            f"reasoning-gym data set {self.name!r} gave no {side} problem in {TRIES} draws; it holds too few."
        )

    def example(self, index: int) -> Example:
        return self._cached("train", index, False)

    def held_out(self, count: int) -> list[Example]:
        """Raises ValueError where the data set holds too few problems."""
        found: dict[Prompt, Example] = {}
        for index in range(20 * count + 100):
            if len(found) == count:
                break
            item = self._cached("held out", index, True)
            found[item.columns["entry"]["question"]] = item
        if len(found) < count:
            raise ValueError(f"count must be <= {len(found)} held-out problems of {self.name!r}; got {count}.")
        return list(found.values())

    def demonstration(self, index: int) -> str:
        return self.example(index).answer

    def corrupt(self, solution: str, rng: random.Random) -> str:
        """A digit is another, or the characters are shuffled where there is none."""
        changed = digits_changed(solution, rng)
        return changed if changed != solution else "".join(rng.sample(solution, len(solution)))

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The data set's own score in [0, 1]."""
        pairs = zip(completions, columns["entry"], strict=True)
        return [float(self.items.score_answer(completion.strip(), entry)) for completion, entry in pairs]
