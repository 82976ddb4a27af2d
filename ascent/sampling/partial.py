"""Partial rollouts: responses grow a segment an act and are resumed by later policies, each token keeping its own
log-prob of the policy that drew it.

More prompts are under way than a batch holds, begun a batch at a time. An act lets all of them grow, segment by
segment, until a batch of groups is complete; the rest wait, with their tokens, for the next act and the next policy. So
long responses do not hold a batch up, and a response may hold tokens of several policies: `policy_version` [N, T] says
which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ascent.core.decisions import Decisions
from ascent.core.random import key, mix
from ascent.policies.causal import CausalPolicy
from ascent.sampling.text import Distribution, fits, respond
from ascent.worlds.text.task import TextTask


@dataclass
class Growing:
    """One response under way.

    Attributes:
        index: of its prompt; key: of its draws.
        tokens, log_probs, versions: of every token so far, and the act that drew it.
        ended: it wrote its end; full: it used its budget.
    """

    index: int
    key: int
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    ended: bool = False
    full: bool = False

    @property
    def over(self) -> bool:
        return self.ended or self.full


class PartialSampler:
    """Groups of responses, whole groups only, whose rows may have been begun by earlier policies.

    Args:
        policy: who answers.
        task: the stream of prompts.
        prompts_per_step: groups of one `act`, over all processes, >= number of processes.
        group_size: responses of each prompt, >= 1.
        max_new_tokens: budget of a response, >= 1.
        segment_tokens: tokens that responses grow before it is counted which groups are complete, >= 1.
        in_flight: groups under way, as a multiple of `prompts_per_step`, >= 1; 1 leaves nothing to be resumed.
        distribution: from what tokens are drawn; temperature > 0 and no stop strings.
        seed: of every draw.
        share: (rank, processes).

    Raises:
        ValueError: an argument is out of range, or (in `act`) a prompt does not fit into the context.
    """

    exact = False
    """Rows hold tokens of older policies, so their log-probs are not the present policy's."""

    def __init__(
        self,
        policy: CausalPolicy,
        task: TextTask,
        prompts_per_step: int,
        group_size: int,
        max_new_tokens: int,
        segment_tokens: int,
        in_flight: int = 4,
        distribution: Distribution | None = None,
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        rank, processes = share
        for name, number, low in (
            ("prompts_per_step", prompts_per_step, processes),
            ("group_size", group_size, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("segment_tokens", segment_tokens, 1),
            ("in_flight", in_flight, 1),
        ):
            if not isinstance(number, int) or number < low:
                raise ValueError(f"{name} must be an integer >= {low}; got {number!r}.")
        if not 0 <= rank < processes:
            raise ValueError(f"share must be (rank, processes) with 0 <= rank < processes; got {share!r}.")
        self.distribution = distribution or Distribution()
        if self.distribution.temperature == 0 or self.distribution.stop:
            raise ValueError(
                "partial rollouts need temperature > 0 and no stop strings; "
                f"got temperature={self.distribution.temperature!r}, stop={self.distribution.stop!r}."
            )
        self.policy, self.task = policy, task
        self.prompts_per_step, self.group_size, self.max_new_tokens = prompts_per_step, group_size, max_new_tokens
        self.segment_tokens, self.in_flight, self.seed, self.share = segment_tokens, in_flight, seed, share
        self.consumed = 0
        self.growing: list[list[Growing]] = []

    @property
    def wanted(self) -> int:
        """Groups that this process returns in an act."""
        rank, processes = self.share
        return len(range(rank, self.prompts_per_step, processes))

    def act(self, step: int) -> Decisions:
        """The oldest groups that are complete, as soon as there are enough of them."""
        while sum(all(row.over for row in group) for group in self.growing) < self.wanted:
            self._begin()
            self._grow(step)
        done = [group for group in self.growing if all(row.over for row in group)][: self.wanted]
        names = {group[0].index for group in done}
        self.growing = [group for group in self.growing if group[0].index not in names]
        return self._decisions(done)

    def _begin(self) -> None:
        """Start another batch of prompts while it may be under way; every process skips the others' prompts."""
        rank, processes = self.share
        end = min(len(self.growing) + self.wanted, self.in_flight * self.wanted)
        while len(self.growing) < end:
            for index in range(self.consumed, self.consumed + processes):
                if index % processes == rank:
                    fits(self.policy, len(self.encode(index)), self.max_new_tokens, index)
                    words = mix(torch.tensor(key(self.seed, "sample")), index, torch.arange(self.group_size))
                    self.growing.append([Growing(index, int(word)) for word in words])
            self.consumed += processes

    def encode(self, index: int) -> list[int]:
        """Token ids of prompt `index`."""
        return self.policy.encode_prompt(self.task.example(index).prompt)

    def _grow(self, step: int) -> None:
        """A segment for every response that is not over; responses of equal remaining budget share a batch."""
        rows = [row for group in self.growing for row in group if not row.over]
        for tokens in sorted({self._room(row) for row in rows}):
            part = [row for row in rows if self._room(row) == tokens]
            starts = [self.encode(row.index) + row.tokens for row in part]
            # A draw is named by the response and by where in it the segment begins, not by the act.
            keys = torch.stack([mix(torch.tensor(row.key), len(row.tokens)) for row in part])
            found = respond(self.policy, starts, 1, keys, tokens, self.distribution)
            for row, mask, action, log_prob, ended in zip(
                part, found.mask, found.action, found.log_prob, found.ended.tolist(), strict=True
            ):
                row.tokens += action[mask].tolist()
                row.log_probs += log_prob[mask].tolist()
                row.versions += [step] * int(mask.sum())
                row.ended, row.full = ended, len(row.tokens) >= self.max_new_tokens

    def _room(self, row: Growing) -> int:
        return min(self.segment_tokens, self.max_new_tokens - len(row.tokens))

    def _decisions(self, groups: Sequence[Sequence[Growing]]) -> Decisions:
        rows, device = [row for group in groups for row in group], self.policy.device
        prompt, real = self.policy.pad_prompts([self.encode(group[0].index) for group in groups])
        width = max(len(row.tokens) for row in rows)

        def padded(lists: Sequence[Sequence[float]], filler: float, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor([[*x, *[filler] * (width - len(x))] for x in lists], dtype=dtype, device=device)

        length = torch.tensor([len(row.tokens) for row in rows], device=device)[:, None]
        place = torch.arange(width, device=device)
        last, ended = place == length - 1, torch.tensor([row.ended for row in rows], device=device)[:, None]
        number = torch.tensor([row.index for row in rows], device=device)
        return Decisions(
            mask=place < length,
            context={"prompt": prompt, "prompt_mask": real},
            context_row=torch.arange(len(groups), device=device).repeat_interleave(self.group_size),
            action=padded([row.tokens for row in rows], self.policy.pad, torch.int64),
            behaviour_log_prob=padded([row.log_probs for row in rows], 0.0, torch.float32),
            terminated=last & ended,
            truncated=last & ~ended,
            group=number,
            index=number.clone(),
            key=torch.tensor([row.key for row in rows], device=device),
            policy_version=padded([row.versions for row in rows], 0, torch.int64),
            extras={"budget": torch.full((len(rows),), self.max_new_tokens, device=device)},
        )

    def state_dict(self) -> dict[str, Any]:
        """The cursor by consumed prompt, and every response under way."""
        return {"consumed": self.consumed, "growing": [[asdict(row) for row in group] for group in self.growing]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the responses that were under way."""
        self.consumed = int(state["consumed"])
        self.growing = [[Growing(**row) for row in group] for group in state["growing"]]
