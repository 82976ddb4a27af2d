"""Rewards of responses: decode them, call the verifier or the reward functions, write the last decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.reductions import last
from ascent.worlds.text.rewards import Rewards, total
from ascent.worlds.text.task import Example, TextTask


class BatchDecoder(Protocol):
    """The part of a tokenizer that scoring needs."""

    def batch_decode(self, sequences: list[list[int]], *, skip_special_tokens: bool) -> list[str]: ...


class TextScore:
    """Writes `reward` on the last decision of each row.

    A row to which no reward applies (None) is masked out as a whole. Each function's own numbers are kept as
    the extra column `reward:<name>` [N], 0 where it does not apply.

    Args:
        task: whose examples the rows' `index` numbers.
        tokenizer: that wrote the actions.
        rewards: reward functions; None takes the task's own verifier.
        timeout: seconds that the verifier may take for one batch.
    """

    def __init__(
        self, task: TextTask, tokenizer: BatchDecoder, rewards: Rewards | None = None, timeout: float = 60.0
    ) -> None:
        self.task, self.tokenizer = task, tokenizer
        self.rewards = rewards or Rewards(
            (task.score,), names=(f"verifier of {task.name}",), timeout=timeout, messages=False
        )

    def __call__(self, decisions: Decisions) -> Decisions:
        texts = self.completions(decisions)
        examples = {index: self.task.example(index) for index in set(decisions.index.tolist())}
        rows = [examples[index] for index in decisions.index.tolist()]
        each = self.score(rows, texts)
        totals = total(each, self.rewards.weights)
        applies = torch.tensor([item is not None for item in totals], device=decisions.mask.device)
        score = _column(totals, decisions.mask)
        mask = decisions.mask & applies[:, None]
        number = decisions.behaviour_log_prob.dtype if "behaviour_log_prob" in decisions else torch.get_default_dtype()
        reward = torch.where(last(decisions, "row"), score[:, None], 0.0).to(number)
        names = (f"reward:{name}" for name in self.rewards.names)
        parts = {name: _column(values, mask).to(number) for name, values in zip(names, each, strict=True)}
        scored = decisions.replace(mask=mask, reward=reward)
        return scored.with_extras(parts) if len(parts) > 1 else scored

    def completions(self, decisions: Decisions) -> list[str]:
        """The text of each row, without special tokens."""
        pairs = zip(decisions.action.cpu(), decisions.mask.cpu(), strict=True)
        return list(self.tokenizer.batch_decode([ids[keep].tolist() for ids, keep in pairs], skip_special_tokens=True))

    def score(self, examples: Sequence[Example], completions: Sequence[str]) -> list[list[float | None]]:
        """Each function's scores of completions of these examples."""
        names = {name for example in examples for name in example.columns} | {"answer"}
        columns: dict[str, list[Any]] = {
            name: [example.answer if name == "answer" else example.columns.get(name) for example in examples]
            for name in names
        }
        return self.rewards.each([example.prompt for example in examples], list(completions), **columns)


def _column(values: Sequence[float | None], like: Tensor) -> Tensor:
    return torch.tensor([0.0 if item is None else item for item in values], dtype=torch.float64, device=like.device)
