"""Three kinds of problem, built as trees: bandit, token sequence, Markov decision process with a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ascent.evaluation.exact.tree import Tree


@dataclass(frozen=True)
class Path:
    """One trajectory while it is being listed."""

    prompt: int = 0
    chance: float = 0.0
    state: tuple[int, ...] = ()
    action: tuple[int, ...] = ()
    next_state: tuple[int, ...] = ()
    reward: tuple[float, ...] = ()
    truncated: bool = field(default=False, kw_only=True)

    def then(self, state: int, action: int, next_state: int, reward: float, chance: float = 0.0) -> Path:
        """The path after one more decision."""
        return replace(
            self,
            chance=self.chance + chance,
            state=(*self.state, state),
            action=(*self.action, action),
            next_state=(*self.next_state, next_state),
            reward=(*self.reward, reward),
        )


def _tree(
    name: str,
    paths: Sequence[Path],
    states: int,
    actions: int,
    prompts: Tensor,
    final_value: Tensor,
    discount: float = 1.0,
) -> Tree:
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount must be in [0, 1]; got {discount}.")
    width = max(len(path.action) for path in paths)
    lengths = torch.tensor([len(path.action) for path in paths])
    mask = torch.arange(width) < lengths[:, None]
    last = torch.arange(width) == lengths[:, None] - 1
    truncated = torch.tensor([path.truncated for path in paths])[:, None]

    def column(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*row, *(0,) * (width - len(row))] for row in rows], dtype=dtype)

    return Tree(
        name=name,
        states=states,
        actions=actions,
        prompt=torch.tensor([path.prompt for path in paths]),
        prompt_probability=prompts,
        chance=torch.tensor([path.chance for path in paths], dtype=torch.float64),
        mask=mask,
        state=column([path.state for path in paths], torch.int64),
        action=column([path.action for path in paths], torch.int64),
        next_state=column([path.next_state for path in paths], torch.int64),
        reward=column([path.reward for path in paths], torch.float64),
        terminated=last & ~truncated,
        truncated=last & truncated,
        final_value=final_value,
        discount=discount,
    )


def bandit(reward: Sequence[Sequence[float]], name: str = "bandit") -> Tree:
    """One decision per question: `reward[p][a]` of answer `a` to question `p`; questions are equally likely."""
    sizes = {len(row) for row in reward}
    if not reward or len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"reward must be a table [questions][answers] with rows of equal length >= 1; got {reward!r}.")
    paths = [
        Path(prompt).then(prompt, action, 0, worth)
        for prompt, row in enumerate(reward)
        for action, worth in enumerate(row)
    ]
    prompts = torch.full((len(reward),), 1.0 / len(reward), dtype=torch.float64)
    return _tree(name, paths, len(reward), sizes.pop(), prompts, torch.zeros(0, dtype=torch.float64))


def sequence(
    score: Callable[[tuple[int, ...]], float],
    vocabulary: int,
    horizon: int,
    end: int | None = 0,
    name: str = "sequence",
) -> Tree:
    """Tokens until `end` or until `horizon` tokens are written; the score sits on the last one.

    Args:
        score: of the whole response, the end token included.
        vocabulary: tokens, >= 1; every prefix is a state of its own.
        horizon: most tokens, >= 1. A response that reaches it without `end` is truncated, with no worth
            beyond its score: the budget is part of the task.
        end: the token that ends a response, or None for responses of fixed length (which terminate).
    """
    if vocabulary < 1 or horizon < 1:
        raise ValueError(f"vocabulary and horizon must be >= 1; got {vocabulary} and {horizon}.")
    prefixes: dict[tuple[int, ...], int] = {(): 0}
    queue: list[tuple[int, ...]] = [()]
    for prefix in queue:
        for token in range(vocabulary):
            longer = (*prefix, token)
            if token != end and len(longer) < horizon:
                prefixes[longer] = len(prefixes)
                queue.append(longer)
    beyond = len(prefixes)

    def finish(path: Path) -> Iterator[Path]:
        prefix = path.action
        for token in range(vocabulary):
            response = (*prefix, token)
            ended = token == end
            if ended or len(response) == horizon:
                cut = not ended and end is not None
                step = path.then(prefixes[prefix], token, beyond if cut else 0, float(score(response)))
                yield replace(step, truncated=cut)
            else:
                yield from finish(path.then(prefixes[prefix], token, prefixes[response], 0.0))

    paths = list(finish(Path()))
    return _tree(
        name, paths, beyond, vocabulary, torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    )


def decision_process(
    start: Tensor,
    transition: Tensor,
    reward: Tensor,
    horizon: int,
    final_value: Tensor | None = None,
    discount: float = 1.0,
    name: str = "decision process",
) -> Tree:
    """A Markov decision process with chance in it, stopped by a time limit.

    Args:
        start: [S] probabilities of the first state.
        transition: [S, A, S + 1] probabilities of the next state; the last one ends the episode (terminated).
        reward: [S, A, S + 1] of each transition.
        horizon: decisions after which the time limit stops the episode (truncated), >= 1.
        final_value: [S] worth of the state in which the limit stops an episode; None is 0 everywhere.
        discount: of the objective, in [0, 1].

    Raises:
        ValueError: probabilities do not sum to 1, or shapes disagree.
    """
    states, actions = transition.shape[:2]
    if (
        transition.shape != (states, actions, states + 1)
        or reward.shape != transition.shape
        or start.shape != (states,)
    ):
        raise ValueError(
            f"start, transition and reward must be [S], [S, A, S + 1] and [S, A, S + 1]; got {list(start.shape)}, "
            f"{list(transition.shape)} and {list(reward.shape)}."
        )
    totals = torch.cat([start.sum()[None], transition.sum(-1).reshape(-1)])
    if bool((totals - 1).abs().max() > 1e-9):
        raise ValueError(f"start and every transition[s, a] must sum to 1; the sums are {totals.tolist()}.")

    def finish(path: Path, state: int) -> Iterator[Path]:
        for action in range(actions):
            for following, chance in enumerate(transition[state, action].tolist()):
                if chance == 0.0:
                    continue
                worth = float(reward[state, action, following])
                surprise = float(torch.tensor(chance, dtype=torch.float64).log())
                if following == states:
                    yield path.then(state, action, 0, worth, surprise)
                elif len(path.action) + 1 == horizon:
                    yield replace(path.then(state, action, states + following, worth, surprise), truncated=True)
                else:
                    yield from finish(path.then(state, action, following, worth, surprise), following)

    paths = [
        whole
        for state, chance in enumerate(start.tolist())
        if chance > 0.0
        for whole in finish(Path(chance=float(torch.tensor(chance, dtype=torch.float64).log())), state)
    ]
    final = torch.zeros(states, dtype=torch.float64) if final_value is None else final_value.to(torch.float64)
    return _tree(name, paths, states, actions, torch.ones(1, dtype=torch.float64), final, discount)
