"""Stages as data: collecting with refill and surplus, repeating, phases, and going on in the middle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.training import checkpoint
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase, Repeat, without_others

GROUPS, SIZE = 3, 2


class Groups:
    """Three groups of two rows an act; a group's number is its cursor, and its prompt is as long as that number."""

    def __init__(self) -> None:
        self.consumed = 0

    def act(self, step: int) -> Decisions:
        number = torch.arange(self.consumed, self.consumed + GROUPS)
        self.consumed += GROUPS
        group = number.repeat_interleave(SIZE)
        return Decisions(
            mask=torch.ones(GROUPS * SIZE, 2, dtype=torch.bool),
            context={"prompt": number[:, None].expand(GROUPS, int(number[-1]) + 1).clone()},
            context_row=torch.arange(GROUPS).repeat_interleave(SIZE),
            reward=torch.stack([torch.zeros(GROUPS * SIZE), group.float()], 1),
            group=group,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]


def keeping(*refused: int) -> Callable[[Decisions], torch.Tensor]:
    """Accepts every group but these."""
    return lambda acted: ~torch.isin(acted.group, torch.tensor(refused, dtype=torch.int64))


def collect(accept: Any = None, refill: int = 0, **more: Any) -> tuple[Collect, Fresh, Loop]:
    memory = Fresh()
    stage = Collect("collect", Groups(), memory, accept=accept, refill=refill, **more)
    return stage, memory, Loop(System({}, {"fresh": memory}, (Phase("train", (stage,), 1),)))


def drawn(memory: Fresh) -> list[int]:
    return memory.draw(0).group.tolist()


def test_without_acceptance_everything_is_put() -> None:
    stage, memory, loop = collect()
    stage.run(loop, 0)
    assert drawn(memory) == [0, 0, 1, 1, 2, 2]
    assert loop.decisions == 12
    assert float(loop.recorded["reward"][0]) == pytest.approx(1.0), "mean over rows of their total"
    assert float(loop.recorded["length"][0]) == 2
    assert "refused" not in loop.recorded


def test_refused_groups_are_refilled_and_the_surplus_waits() -> None:
    stage, memory, loop = collect(keeping(0, 1), refill=4)
    stage.run(loop, 0)
    # Act 1 gives 2; act 2 gives 3, 4, 5: one more than is missing.
    assert drawn(memory) == [2, 2, 3, 3, 4, 4]
    assert stage.surplus is not None and stage.surplus.group.tolist() == [5, 5]
    assert [float(x) for x in loop.recorded["refused"]] == [4.0]
    assert stage.sampler.consumed == 6
    stage.run(loop, 1)
    assert drawn(memory) == [5, 5, 6, 6, 7, 7], "the surplus comes first"
    assert stage.surplus.group.tolist() == [8, 8]
    assert loop.decisions == 3 * GROUPS * SIZE * 2, "refused decisions were made too"


def test_the_rows_keep_their_own_prompts_and_no_others_travel() -> None:
    stage, memory, loop = collect(keeping(0, 1, 7), refill=4)
    for round_ in range(6):
        stage.run(loop, round_)
        batch = memory.draw(0)
        assert torch.equal(batch.context["prompt"][batch.context_row, 0], batch.group)
        if stage.surplus is not None:
            used = stage.surplus.context["prompt"]
            assert torch.equal(used[stage.surplus.context_row, 0], stage.surplus.group)
            assert len(used) == len(set(stage.surplus.group.tolist())), "contexts do not pile up"


def test_refill_ends_and_a_smaller_batch_goes_on() -> None:
    stage, memory, loop = collect(keeping(0, 1, 3, 4, 5, 6, 7, 8), refill=2)
    stage.run(loop, 0)
    assert drawn(memory) == [2, 2]
    assert stage.acts == 3
    assert float(loop.recorded["refused"][0]) == 16
    assert stage.surplus is None


def test_where_nothing_is_accepted_the_last_rows_are_used_as_they_came() -> None:
    stage, memory, loop = collect(keeping(*range(100)), refill=1)
    stage.run(loop, 0)
    assert drawn(memory) == [0, 0, 1, 1, 2, 2]
    assert float(loop.recorded["refused"][0]) == 12


def test_a_resumed_collect_uses_its_surplus(tmp_path) -> None:
    straight, first, loop = collect(keeping(0, 1), refill=4)
    straight.run(loop, 0)
    state = checkpoint.load(checkpoint.save(tmp_path, 0, straight.state_dict()))
    straight.run(loop, 1)
    resumed, second, other = collect(keeping(0, 1), refill=4)
    resumed.load_state_dict(state)
    resumed.run(other, 1)
    assert first.parts[-1].group.tolist() == drawn(second)


def test_a_checkpoint_of_other_processes_is_refused() -> None:
    stage, _, _ = collect()
    state = stage.state_dict()
    with pytest.raises(ValueError, match="saved by 2 processes, and this run has 1"):
        collect()[0].load_state_dict({**state, "samplers": state["samplers"] * 2})


def test_every_counts_rounds() -> None:
    stage, memory, loop = collect(every=3)
    for round_ in range(7):
        stage.run(loop, round_)
    assert len(memory.parts) == 2


def test_statistics_are_reported_and_may_come_later() -> None:
    found: dict[str, float] = {}
    stage, _, loop = collect(statistics=lambda: found)
    stage.run(loop, 0)
    assert "episode_return" not in loop.recorded
    found["episode_return"] = 4.0
    stage.run(loop, 1)
    assert [float(x) for x in loop.recorded["episode_return"]] == [4.0]


def test_rows_that_no_reward_applies_to_do_not_count() -> None:
    def score(acted: Decisions) -> Decisions:
        mask = acted.mask.clone()
        mask[0] = False
        return acted.replace(mask=mask)

    stage, _, loop = collect(score=score)
    stage.run(loop, 0)
    assert float(loop.recorded["reward"][0]) == pytest.approx((1 + 1 + 2 + 2) / 5)
    assert float(loop.recorded["length"][0]) == 2


def test_contexts_of_rows_that_own_theirs_stay() -> None:
    rows = Decisions(mask=torch.ones(2, 1, dtype=torch.bool), context={"x": torch.arange(2)})
    assert without_others(rows) is rows


class Noted(Exception):
    pass


class Note:
    """Writes down when it runs; raises once at a given place."""

    def __init__(self, name: str, notes: list[tuple[str, int]], stop_at: int = -1) -> None:
        self.name, self.notes, self.stop_at = name, notes, stop_at

    def run(self, loop: Loop, round_: int) -> None:
        if round_ == self.stop_at:
            raise Noted
        self.notes.append((self.name, round_))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def program(notes: list[tuple[str, int]], stop_at: int = -1) -> Loop:
    inner = Repeat("inner", 3, (Note("b", notes), Note("c", notes, stop_at)))
    phase = Phase("train", (Note("a", notes), inner, Note("d", notes)), 2)
    return Loop(System({}, {}, (phase,)))


def test_repeat_counts_its_turns_over_all_rounds() -> None:
    notes: list[tuple[str, int]] = []
    program(notes).run()
    turns = [[("b", n), ("c", n)] for n in range(6)]
    first, second = (list(chain.from_iterable(half)) for half in (turns[:3], turns[3:]))
    assert notes == [("a", 0), *first, ("d", 0), ("a", 1), *second, ("d", 1)]


@pytest.mark.parametrize("stop_at", range(6))
def test_a_program_goes_on_in_the_middle_of_a_repeat(tmp_path, stop_at: int) -> None:
    straight: list[tuple[str, int]] = []
    program(straight).run()
    notes: list[tuple[str, int]] = []
    broken = program(notes, stop_at)
    with pytest.raises(Noted):
        broken.run()
    resumed = program(notes)
    resumed.load_state_dict(checkpoint.load(checkpoint.save(tmp_path, 0, broken.state_dict())))
    resumed.run()
    assert notes == straight


def test_stages_of_one_name_are_refused() -> None:
    notes: list[tuple[str, int]] = []
    with pytest.raises(ValueError, match="distinct names"):
        Phase("train", (Note("a", notes), Note("a", notes)), 1).state_dict()


def test_a_phase_of_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="until must be >= 0"):
        Phase("train", (), -1)
