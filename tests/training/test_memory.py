"""What each memory holds, gives, and carries through a checkpoint."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.training.memory import Dataset, Fresh, Memory, Remaining, Replay, Window, along_time


def collection(*numbers: float, streams: int = 2) -> Decisions:
    """[streams, T] rewards, the same numbers in each stream plus 100 for the next stream."""
    reward = torch.tensor(numbers, dtype=torch.float32)[None] + 100 * torch.arange(streams)[:, None]
    return Decisions(
        mask=torch.ones_like(reward, dtype=torch.bool),
        reward=reward,
        context={"observation": reward[..., None]},
        group=torch.arange(streams),
    )


def numbers(drawn: Decisions) -> list[list[float]]:
    return drawn.reward.tolist()


def restored(memory: Memory, empty: Memory) -> Memory:
    empty.load_state_dict(memory.state_dict())
    return empty


def test_fresh_gives_each_collection_once() -> None:
    memory = Fresh()
    memory.put(collection(1))
    memory.put(collection(2))
    assert numbers(restored(memory, Fresh()).draw(0)) == [[1], [101], [2], [102]]
    assert numbers(memory.draw(0)) == [[1], [101], [2], [102]]
    with pytest.raises(RuntimeError, match="put a Collect before"):
        memory.draw(1)


def test_a_window_joins_the_last_collections_along_time() -> None:
    memory = Window(2)
    with pytest.raises(RuntimeError, match="empty"):
        memory.draw(0)
    for number in (1, 2, 3):
        memory.put(collection(number, number + 0.5))
    drawn = memory.draw(0)
    assert numbers(drawn) == [[2, 2.5, 3, 3.5], [102, 102.5, 103, 103.5]]
    assert drawn.context["observation"].shape == (2, 4, 1)
    assert drawn.group.tolist() == [0, 1]
    assert numbers(memory.draw(1)) == numbers(drawn), "a draw takes nothing away"
    assert numbers(restored(memory, Window(2)).draw(0)) == numbers(drawn)


def test_a_window_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="recent must be >= 1"):
        Window(0)


def test_remaining_leaves_out_the_oldest_of_a_full_window() -> None:
    window = Window(2)
    view = Remaining(window)
    view.put(collection(1))
    assert numbers(view.draw(0)) == [[1], [101]], "nothing leaves a window that is not full"
    window.put(collection(2))
    assert numbers(view.draw(0)) == [[2], [102]]
    window.put(collection(3))
    assert numbers(view.draw(0)) == [[3], [103]]
    assert view.state_dict() == {}


def test_remaining_of_a_window_of_one_is_the_window() -> None:
    window = Window(1)
    window.put(collection(1))
    assert numbers(Remaining(window).draw(0)) == [[1], [101]]


def test_a_replay_overwrites_its_oldest() -> None:
    memory = Replay(capacity=4, batch=400, seed=0)
    with pytest.raises(RuntimeError, match="empty"):
        memory.draw(0)
    memory.put(collection(1))
    memory.put(collection(2))
    memory.put(collection(3))
    drawn = memory.draw(0)
    assert drawn.mask.shape == (400, 1)
    assert set(drawn.reward.flatten().tolist()) == {2, 102, 3, 103}
    assert torch.equal(drawn.context["observation"][..., 0], drawn.reward), "columns of a decision stay together"


def test_a_replay_draws_uniformly_and_by_round() -> None:
    memory = Replay(capacity=8, batch=8000, seed=3)
    memory.put(collection(0, 1, 2, 3))
    counts = torch.unique(memory.draw(0).reward, return_counts=True)[1]
    # Each of 8 cells expects 1000; six standard deviations are 178.
    assert len(counts) == 8 and int((counts - 1000).abs().max()) < 178
    assert torch.equal(memory.draw(5).reward, memory.draw(5).reward)
    assert not torch.equal(memory.draw(5).reward, memory.draw(6).reward)
    again = restored(memory, Replay(capacity=8, batch=8000, seed=3))
    assert torch.equal(again.draw(5).reward, memory.draw(5).reward)


def test_a_collection_longer_than_the_replay_leaves_its_end() -> None:
    memory = Replay(capacity=3, batch=200, seed=0)
    memory.put(collection(*range(10), streams=1))
    assert set(memory.draw(0).reward.flatten().tolist()) == {7, 8, 9}
    memory.put(collection(10, streams=1))
    assert set(memory.draw(0).reward.flatten().tolist()) == {8, 9, 10}


@pytest.mark.parametrize(("capacity", "batch", "name"), [(0, 1, "capacity"), (1, 0, "batch")])
def test_a_replay_of_nothing_is_refused(capacity: int, batch: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1"):
        Replay(capacity, batch, 0)


def test_a_data_set_is_walked_once_an_epoch_in_new_orders() -> None:
    content = Decisions(mask=torch.ones(12, 1, dtype=torch.bool), group=torch.arange(12) // 2)
    memory = Dataset(content, batch=2, seed=0)
    epochs = []
    for epoch in range(3):
        drawn = [memory.draw(round_).group.tolist() for round_ in range(3 * epoch, 3 * epoch + 3)]
        assert all(len(set(groups)) == 2 and len(groups) == 4 for groups in drawn), "groups stay whole"
        assert sorted(chain.from_iterable(drawn)) == sorted(content.group.tolist())
        epochs.append(tuple(map(tuple, drawn)))
    assert len(set(epochs)) == 3
    assert Dataset(content, batch=2, seed=0).draw(7).group.tolist() == memory.draw(7).group.tolist()
    assert memory.state_dict() == {}


def test_a_data_set_refuses_what_it_cannot_do() -> None:
    content = Decisions(mask=torch.ones(3, 1, dtype=torch.bool))
    for batch in (0, 4):
        with pytest.raises(ValueError, match=r"batch must be in \[1, 3\]"):
            Dataset(content, batch, 0)
    with pytest.raises(TypeError, match="recorded"):
        Dataset(content, 1, 0).put(content)


def test_joining_one_collection_changes_nothing() -> None:
    one = collection(1, 2)
    assert along_time([one]) is one
