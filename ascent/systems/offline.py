"""Learning from recorded, scored responses: a data set instead of a sampler, and a reward model of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.pairs import BradleyTerry
from ascent.core.plan import Adam, Plan
from ascent.core.term import Term
from ascent.policies.causal import CausalPolicy
from ascent.sampling.recorded import recorded, written
from ascent.systems.config import BadConfig
from ascent.training.annotate import log_prob_of
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Dataset
from ascent.training.program import Phase
from ascent.worlds.text.scored import read_scored
from ascent.worlds.text.task import Prompt


def dataset(
    path: str,
    policy: CausalPolicy,
    reference: CausalPolicy | None,
    groups: int,
    seed: int,
    rows_at_once: int | None = None,
) -> Dataset:
    """The memory of a file of scored responses, `groups` of them a draw; the reference is asked once.

    Args:
        path: JSONL of prompt, completions, scores (see `ascent.worlds.text.scored`).
        policy: its tokenizer writes the tokens.
        reference: frozen; None where the method needs no `reference_log_prob`.
        groups: prompts of one update, >= 1.
        seed: of the order.
        rows_at_once: most responses in one forward of the reference.

    Raises:
        BadConfig: the file is wrong, or holds fewer groups than an update.
    """
    try:
        content = recorded(read_scored(path), policy)
        if reference is not None:
            content = content.replace(reference_log_prob=reference_log_prob(content, reference, rows_at_once))
        return Dataset(content, groups, seed)
    except (ValueError, OSError) as error:
        raise BadConfig(f"scored: {error}") from error


@torch.no_grad()
def reference_log_prob(content: Decisions, reference: CausalPolicy, rows_at_once: int | None = None) -> torch.Tensor:
    """[N, T] log-probs of a frozen policy, computed once for a whole data set."""
    places = torch.arange(len(content)).split(rows_at_once or 256)
    return torch.cat([log_prob_of(reference)(content.rows(part)) for part in places])


def reward_model_method(learning_rate: float = 1e-3, warmup: int = 0) -> Method:
    """Bradley-Terry: the greater score of a pair should have the greater value. `loss`, `accuracy` are reported."""
    return Method(
        slug="bradley_terry",
        losses={"preference": Term(BradleyTerry(), unit="row", reduction="token-sum")},
        plan=Plan(unit="group"),
        step=Adam(learning_rate=learning_rate, warmup=warmup),
    )


def train_reward_model(
    policy: CausalPolicy, content: Decisions, steps: int, groups: int = 32, learning_rate: float = 1e-3, seed: int = 0
) -> RewardModel:
    """Fit the value head and the body of `policy` to the order of the scores; `policy` itself is changed.

    Args:
        policy: with value_head=True, usually a copy of the supervised model.
        content: of `recorded`.
        steps: updates, >= 1.
        groups: prompts of one update.
        learning_rate: of Adam; 1e-3 suits the embedded model, the paper's 7B model uses 1e-6.
        seed: of the order.
    """
    if policy.value_head is None:
        raise ValueError("the reward model needs a policy with value_head=True; load it so.")
    memory = Dataset(content, groups, seed)
    learn = Learn("policy", policy, reward_model_method(learning_rate, warmup=max(steps // 10, 1)), memory, seed=seed)
    Loop(System({"policy": policy}, {"scored": memory}, (Phase("reward model", (learn,), steps),))).run()
    return RewardModel(policy)


class RewardModel:
    """A value head as a reward function of TRL's signature; `policy.save(folder)` keeps it."""

    def __init__(self, policy: CausalPolicy) -> None:
        self.policy = policy

    @torch.no_grad()
    def values(self, content: Decisions) -> torch.Tensor:
        """[N] the score of each row: the value at its last decision."""
        value = self.policy.evaluate(content, frozenset({"value"})).value
        last = content.terminated | content.truncated
        return torch.where(last, value, 0.0).sum(1)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        count = len(completions)
        content = written(prompts, range(count), completions, [0.0] * count, [True] * count, self.policy)
        found: list[float] = self.values(content).tolist()
        return found
