"""Transitions that only judge, bootstraps of members, and a mixture of memories."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.training.held_out import HeldOut, Mixture, poisson
from ascent.training.memory import Replay


def filled(count: int, first: int = 0, capacity: int = 10_000) -> Replay:
    replay = Replay(capacity, 8, seed=1)
    replay.put(rows(count, first))
    return replay


def rows(count: int, first: int = 0) -> Decisions:
    return Decisions(
        mask=torch.ones(1, count, dtype=torch.bool),
        reward=torch.arange(first, first + count)[None].float(),
        trajectory=torch.zeros(1, count, dtype=torch.int64),
        index=torch.arange(first, first + count)[None],
    )


def shares(seen: HeldOut) -> dict[float, Tensor]:
    """The bootstrap row of each fitted transition, by its reward."""
    fitted = seen.parts[0]
    return {float(x): row for x, row in zip(fitted.reward[:, 0], fitted.column("bootstrap"), strict=True)}


def view(replay: Replay, members: int = 3) -> HeldOut:
    return HeldOut(replay, 32, 0.2, members, 0, lambda content: content)


def test_parts_are_disjoint_cover_everything_and_have_the_share() -> None:
    fitted, held = view(filled(4000)).parts
    first, second = set(fitted.reward.flatten().tolist()), set(held.reward.flatten().tolist())
    assert not first & second and len(first | second) == 4000
    assert len(second) / 4000 == pytest.approx(0.2, abs=0.02)


def test_a_transition_keeps_its_part_and_its_shares_when_others_come() -> None:
    replay = filled(500)
    seen = view(replay)
    before = shares(seen)
    replay.put(rows(500, 500))
    assert len(seen.parts[0]) == len(before)  # nothing is asked anew before the next fit begins
    seen.begin()
    after = shares(seen)
    assert {name for name in after if name < 500} == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_draws_are_of_the_fitted_part_and_repeat_by_round() -> None:
    seen = view(filled(300))
    held = set(seen.parts[1].reward.flatten().tolist())
    drawn = seen.draw(5)
    assert drawn.mask.shape == (32, 1) and not held & set(drawn.reward.flatten().tolist())
    assert torch.equal(drawn.reward, seen.draw(5).reward) and not torch.equal(drawn.reward, seen.draw(6).reward)
    assert seen.turns == -(-len(seen.parts[0]) // 32)


def test_bootstraps_are_poisson_and_differ_by_member() -> None:
    shares = view(filled(8000)).parts[0].column("bootstrap")[:, 0]
    torch.testing.assert_close(shares.mean(0), torch.ones(3), atol=0.06, rtol=0)
    torch.testing.assert_close(shares.var(0), torch.ones(3), atol=0.1, rtol=0)
    assert abs(float(torch.corrcoef(shares.T)[0, 1])) < 0.05
    assert (view(filled(50), members=1).parts[0].column("bootstrap") == 1).all()


def test_poisson_counts_at_the_edges() -> None:
    assert poisson(torch.tensor([0.0, 0.3678, 0.3680, 0.7357, 0.7359])).tolist() == [0, 0, 1, 1, 2]


def test_a_handful_of_transitions_does_both() -> None:
    fitted, held = view(filled(1)).parts
    assert len(fitted) == len(held) == 1


def test_annotations_are_made_once_a_fit() -> None:
    asked = []

    def annotate(content: Decisions) -> Decisions:
        asked.append(len(content))
        return content.with_extras({"twice": 2 * content.reward})

    seen = HeldOut(filled(100), 16, 0.2, 2, 0, annotate)
    assert torch.equal(seen.draw(0).column("twice"), 2 * seen.draw(0).reward)
    seen.begin()
    seen.draw(1)
    assert asked == [100, 100]


def test_a_mixture_draws_the_second_memory_with_its_share() -> None:
    first, second = filled(100), filled(100, 1000)
    mixed = Mixture(first, second, lambda: 0.7, seed=3)
    other = [bool((mixed.draw(turn).reward >= 1000).all()) for turn in range(400)]
    pure = [bool((mixed.draw(turn).reward < 1000).all()) for turn in range(400)]
    assert sum(other) / 400 == pytest.approx(0.7, abs=0.07) and sum(other) + sum(pure) == 400
    empty = Mixture(first, Replay(10, 8, 0), lambda: 1.0, seed=3)
    assert bool((empty.draw(0).reward < 1000).all())
    with pytest.raises(TypeError, match="collect into one"):
        mixed.put(rows(3))
