"""The program: stages as data that the loop walks. Every stage knows where it is, so a run resumes in the middle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ascent.core.decisions import Decisions, concatenate
from ascent.core.method import Credit
from ascent.sampling.sampler import Sampler
from ascent.training.memory import Memory
from ascent.training.processes import Processes

if TYPE_CHECKING:
    from ascent.training.loop import Loop

Hook = Callable[[], None]
Score = Callable[[Decisions], Decisions]


class Stage(Protocol):
    """What a program is made of."""

    name: str

    def run(self, loop: Loop, round_: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Collect:
    """Act and score into a memory; refused rows are refilled.

    Args:
        name: unique in the program.
        sampler: policy and world; its cursor travels with the sampler.
        memory: where the collection goes.
        score: writes `reward`, where the sampler does not.
        accept: rows that may stay, decisions -> [N] bool (dynamic sampling); whole groups.
        refill: at most so many further acts while rows are missing; the surplus waits for the next round.
        every: rounds of the phase between two runs of this stage.
        statistics: further numbers to report after an act (returns of finished episodes).
        processes: that share the sampling; each one's sampler state is saved.
        imagined: the decisions are a model's and not the world's: they do not count as the run's, and what is
            reported of them is prefixed by `name`.
    """

    def __init__(
        self,
        name: str,
        sampler: Sampler,
        memory: Memory,
        *,
        score: Score | None = None,
        accept: Credit | None = None,
        refill: int = 0,
        every: int = 1,
        statistics: Callable[[], Mapping[str, float]] | None = None,
        processes: Processes | None = None,
        imagined: bool = False,
    ) -> None:
        self.name, self.sampler, self.memory, self.statistics = name, sampler, memory, statistics
        self.imagined = imagined
        self.processes = processes or Processes()
        self.score, self.accept, self.refill, self.every = score, accept, refill, every
        self.acts = 0
        self.surplus: Decisions | None = None

    def run(self, loop: Loop, round_: int) -> None:
        if (round_ + 1) % self.every:
            return
        acted = self.act(loop)
        wanted, refused = len(acted), 0
        if self.accept is not None:
            kept, refused = self.accepted(acted)
            kept = kept if self.surplus is None else concatenate([self.surplus, kept])
            for _ in range(self.refill):
                if len(kept) >= wanted:
                    break
                more, out = self.accepted(self.act(loop))
                kept, refused = concatenate([kept, more]), refused + out
            loop.record({"refused": torch.tensor(float(refused))})
            # An update without a single informative row would be empty; the rows as they came are kept then.
            acted = kept if len(kept) else acted
        self.surplus = without_others(acted.rows(slice(wanted, None))) if len(acted) > wanted else None
        self.memory.put(acted.rows(slice(0, wanted)) if self.surplus is not None else acted)

    def act(self, loop: Loop) -> Decisions:
        """One act of every process's sampler, scored; records the mean reward of a row."""
        acted = self.sampler.act(self.acts)
        self.acts += 1
        if self.score is not None:
            acted = self.score(acted)
        acted = self.processes.gather(acted)
        summary = _summary(acted)
        if self.imagined:
            summary = {f"{self.name}/{name}": number for name, number in summary.items()}
        else:
            loop.decisions += int(acted.mask.sum())
        loop.record(summary)
        if self.statistics is not None:
            own = self.processes.everyone(self.statistics())
            for name in {name: None for found in own for name in found}:
                numbers = [found[name] for found in own if name in found]
                loop.record({name: torch.tensor(sum(numbers) / len(numbers))})
        return acted

    def accepted(self, acted: Decisions) -> tuple[Decisions, int]:
        assert self.accept is not None
        keep = self.accept(acted)
        return acted.rows(keep), int((~keep).sum())

    def state_dict(self) -> dict[str, Any]:
        surplus = None if self.surplus is None else self.surplus.to_tensors()
        samplers = self.processes.everyone(self.sampler.state_dict())
        return {"acts": self.acts, "surplus": surplus, "samplers": samplers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["samplers"]) != self.processes.count:
            raise ValueError(
                f"the checkpoint was saved by {len(state['samplers'])} processes, and this run has "
                f"{self.processes.count}; resume it with the same number."
            )
        self.acts = state["acts"]
        self.surplus = None if state["surplus"] is None else Decisions.from_tensors(state["surplus"])
        self.sampler.load_state_dict(state["samplers"][self.processes.rank])


def without_others(rows: Decisions) -> Decisions:
    """The rows with their own contexts only; contexts that other rows shared do not travel on."""
    if rows.context_row is None:
        return rows
    used, place = torch.unique(rows.context_row, return_inverse=True)
    return rows.replace(context={name: tensor[used] for name, tensor in rows.context.items()}, context_row=place)


def _summary(acted: Decisions) -> dict[str, Tensor]:
    """Mean reward of a row and decisions per row; rows that no reward applied to do not count."""
    if acted.whole and len(acted):  # nothing to count
        found = {"length": torch.tensor(float(acted.mask.shape[1]))}
        return found | ({"reward": acted.reward.sum() / len(acted)} if "reward" in acted else {})
    lengths = acted.mask.sum(1)
    rows = (lengths > 0).sum().clamp(min=1)
    found = {"length": lengths.sum() / rows}
    if "reward" in acted:
        found["reward"] = torch.where(acted.mask, acted.reward, 0.0).sum() / rows
    return found


class Repeat:
    """The stages, `times` over, within one round."""

    def __init__(self, name: str, times: int, stages: Sequence[Stage]) -> None:
        self.name, self.times, self.stages = name, times, tuple(stages)
        self.turn = self.place = 0

    def run(self, loop: Loop, round_: int) -> None:
        while self.turn < self.times:
            walk(self, loop, round_ * self.times + self.turn)
            self.turn += 1
        self.turn = 0

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn, "place": self.place, **_states(self.stages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.turn, self.place = state["turn"], state["place"]
        _load(self.stages, state)


class Phase:
    """The stages, `until` rounds over; a round is one step of the run."""

    def __init__(self, name: str, stages: Sequence[Stage], until: int) -> None:
        if until < 0:
            raise ValueError(f"until must be >= 0 rounds; got {until}.")
        self.name, self.stages, self.until = name, tuple(stages), until
        self.round = self.place = 0

    def run(self, loop: Loop) -> None:
        while self.round < self.until:
            walk(self, loop, self.round)
            self.round += 1
            loop.stepped()

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "place": self.place, **_states(self.stages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.round, self.place = state["round"], state["place"]
        _load(self.stages, state)


def walk(parent: Phase | Repeat, loop: Loop, round_: int) -> None:
    """Run the children in order from where `parent` stands."""
    while parent.place < len(parent.stages):
        parent.stages[parent.place].run(loop, round_)
        parent.place += 1
    parent.place = 0


def _states(stages: Sequence[Stage]) -> dict[str, Any]:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages must have distinct names; got {names}.")
    return {"stages": {stage.name: stage.state_dict() for stage in stages}}


def _load(stages: Sequence[Stage], state: Mapping[str, Any]) -> None:
    for stage in stages:
        stage.load_state_dict(state["stages"][stage.name])


class Follow:
    """A stage that moves target networks towards their sources: `target <- target + rate (source - target)`.

    Args:
        name: unique in the program.
        pairs: (source, target) modules of equal shapes.
        rate: share of the way, in (0, 1]; 1 copies.
        every: rounds of the phase between two runs of this stage.
    """

    def __init__(self, name: str, pairs: Sequence[tuple[nn.Module, nn.Module]], rate: float, every: int = 1) -> None:
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"rate must be in (0, 1]; got {rate!r}.")
        self.name, self.rate, self.every = name, rate, every
        self.sources = [parameter for source, _ in pairs for parameter in source.parameters()]
        self.targets = [parameter for _, target in pairs for parameter in target.parameters()]

    @torch.no_grad()
    def run(self, loop: Loop, round_: int) -> None:
        if (round_ + 1) % self.every == 0:
            torch._foreach_lerp_(self.targets, self.sources, self.rate)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The models carry the weights; there is nothing else to restore."""


def copy_parameters(source: nn.Module, target: nn.Module) -> Hook:
    """A hook that writes every parameter and buffer of `source` into `target`."""

    def copy() -> None:
        target.load_state_dict(source.state_dict())

    return copy
