"""What both arms of the language benchmark do: sizes, prompts, rewards and the length of every response.

Lengths are the same in both arms. In a fixed workload no token ends a response, so each has the whole budget and
nobody edits a logit. In a ragged workload row r of step s has the length that `lengths` draws by a hash of (s, r):
log-normal with median 0.33 and deviation 0.7 of the budget, cut to [1, budget], mean about 0.4 of it. That is the
shape that reasoning answers have: many short ones, a long tail, some that the budget cuts off. Both arms enforce it
by `edited`, on the logits before each draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MEDIAN, DEVIATION = 0.33, 0.7
PROMPT = 32


@dataclass(frozen=True)
class Work:
    """One workload.

    Attributes:
        name: on the command line and in the tables.
        hidden, layers: of the embedded decoder; vocabulary: 128 or 32768, tied embeddings.
        prompts: of one step, each of `PROMPT` tokens; group_size: responses of each.
        new_tokens: budget of a response; ragged: see above, otherwise every response has all of it.
        steps: measured by default, after `warm_up` steps that do not count.
        threads: of torch.
        prompt: tokens of a prompt.
        device: where both arms compute; micro_rows: most rows in one forward of Ascent's learning.
    """

    name: str
    hidden: int = 128
    layers: int = 4
    vocabulary: int = 128
    prompts: int = 4
    group_size: int = 8
    new_tokens: int = 64
    ragged: bool = False
    steps: int = 30
    warm_up: int = 3
    threads: int = 1
    prompt: int = PROMPT
    learning_rate: float = 1e-4
    device: str = "cpu"
    micro_rows: int | None = None

    @property
    def rows(self) -> int:
        return self.prompts * self.group_size

    @property
    def told(self) -> str:
        """The workload in words."""
        kind = "ragged, at most" if self.ragged else "fixed,"
        return f"{self.rows} responses, {kind} {self.new_tokens} tokens, vocabulary {self.vocabulary}"

    def lengths(self, step: int) -> list[int]:
        """The length of each row's response in step `step`, in [1, new_tokens]."""
        import torch

        from ascent.core.random import key, uniform

        if not self.ragged:
            return [self.new_tokens] * self.rows
        draws = uniform(torch.full((self.rows,), key("length", step)), torch.arange(self.rows))
        share = MEDIAN * torch.exp(DEVIATION * torch.special.ndtri(draws.clamp(min=2.0**-53)))
        return (share * self.new_tokens).round().clamp(1, self.new_tokens).long().tolist()


WORKLOADS = {
    work.name: work
    for work in (
        Work("0.13M fixed", hidden=64, layers=2),
        Work("1M fixed"),
        Work("1M ragged", ragged=True),
        Work("6M fixed", hidden=256, layers=6, steps=20),
        Work("32k vocabulary", vocabulary=32768, steps=5, warm_up=1),
        Work("1M fixed 256", new_tokens=256, steps=5, warm_up=1),
        Work("1M ragged 256", new_tokens=256, ragged=True, steps=5, warm_up=1),
        Work("1M ragged 128 rows", prompts=16, ragged=True, steps=5, warm_up=1),
    )
}


def alphabet(vocabulary: int) -> str:
    """One letter a token: the characters from U+0100 on, four fewer than the vocabulary, which has special tokens."""
    places = (place for place in range(0x100, 0x110000) if not 0xD800 <= place < 0xE000)
    return "".join(chr(place) for place in islice(places, vocabulary - 4))


@dataclass(frozen=True)
class Prompts:
    """A numbered stream of prompts: letters by a hash of their number. Serves as a task of Ascent."""

    vocabulary: int
    max_new_tokens: int
    length: int = PROMPT
    name: str = "letters"

    @property
    def alphabet(self) -> str:
        return alphabet(self.vocabulary)

    def example(self, index: int) -> Any:
        import torch

        from ascent.core.random import key, uniform
        from ascent.worlds.text.task import Example

        letters = self.alphabet
        places = uniform(torch.full((self.length,), key("prompt", index)), torch.arange(self.length)) * len(letters)
        return Example("".join(letters[place] for place in places.long().tolist()))


def reward(completions: list[str], **columns: Any) -> list[float]:
    """Cheap, and hardly ever constant in a group: the share of letters with an odd number."""
    return [sum(ord(letter) % 2 for letter in text) / max(len(text), 1) for text in completions]


def policy_of(work: Work) -> Any:
    """The embedded policy, equal in both arms."""
    from ascent.policies.embedded import embedded

    context = work.prompt + work.new_tokens
    return embedded(alphabet(work.vocabulary), 0, hidden=work.hidden, layers=work.layers, context=context)


def method_of(work: Work) -> Any:
    """GRPO as trl's `loss_type="grpo"` without KL; trl adds 1e-4 to the group's deviation."""
    import ascent

    return ascent.method("grpo", kl_coefficient=0.0, eps=1e-4, learning_rate=work.learning_rate)


class Ends:
    """Where the responses of one step end, for whoever draws their tokens.

    Args:
        lengths: of each row.
        budget: a response of this length is cut off, it does not end.
        eos: id of the token that ends a response.
    """

    def __init__(self, lengths: Sequence[int], budget: int, eos: int) -> None:
        self.lengths, self.budget, self.eos = lengths, budget, eos

    @cached_property
    def ending(self) -> dict[int, list[int]]:
        """Rows that end at a position."""
        found: dict[int, list[int]] = {}
        for row, length in enumerate(self.lengths):
            if length < self.budget:
                found.setdefault(length - 1, []).append(row)
        return found

    def edited(self, logits: Tensor, places: Sequence[int]) -> Tensor:
        """Logits [B, V] of the next token, changed in place: the rows at `places` surely end, and only they."""
        logits[:, self.eos] = -float("inf")
        if places:
            logits[places] = -float("inf")
            logits[places, self.eos] = 0.0
        return logits
