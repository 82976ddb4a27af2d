"""A walk until a held-out loss stops falling, its patience and its resumption; stages that run every so often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ascent.training.early_stopping import Periodic, UntilNoBetter
from ascent.training.loop import Loop, System


class Count:
    """A stage that moves a parameter up by one and may end the process."""

    def __init__(self, model: nn.Linear, stop_at: int = -1) -> None:
        self.name, self.model, self.stop_at, self.runs = "count", model, stop_at, 0

    def run(self, loop: Loop, round_: int) -> None:
        if self.runs == self.stop_at:
            raise KeyboardInterrupt
        self.runs += 1
        with torch.no_grad():
            self.model.weight += 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"runs": self.runs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.runs = state["runs"]


def fitted(losses: Sequence[Sequence[float]], stop_at: int = -1, **options: Any) -> tuple[UntilNoBetter, nn.Linear]:
    """A stage whose held-out losses are looked up by how far the weight has come; two turns an epoch."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    def judge() -> Tensor:
        return torch.tensor(losses[min(round(model.weight.item()) // 2, len(losses) - 1)])

    values = {"patience": 2, "improvement": 0.01, "most": 50, **options}
    return UntilNoBetter("fit", (Count(model, stop_at),), lambda: 2, model, judge, **values), model


def loop() -> Loop:
    return Loop(System({}, {}, ()))


def test_it_ends_after_patience_and_restores_the_best() -> None:
    stage, model = fitted([[5.0], [3.0], [2.0], [2.5], [1.999], [0.1]], report=lambda: {"left": model.weight.detach()})
    walked = loop()
    stage.run(walked, 0)
    assert model.weight.item() == 4.0  # epoch 2; 1.999 is no improvement of one percent, and 0.1 is not reached
    assert float(walked.recorded["fit/epochs"][0]) == 4.0 and float(walked.recorded["fit/held_out"][0]) == 2.0
    assert float(walked.recorded["fit/left"][0]) == 4.0  # what is reported is of the restored weights


def test_any_member_that_improves_counts_and_the_least_losses_are_told() -> None:
    told: list[Tensor] = []
    stage, model = fitted([[5.0, 1.0], [6.0, 0.5], [7.0, 0.6], [8.0, 0.7]], after=told.append)
    stage.run(loop(), 0)
    assert model.weight.item() == 2.0 and told[0].tolist() == [5.0, 0.5]


def test_weights_that_only_get_worse_are_put_back() -> None:
    stage, model = fitted([[1.0], [2.0], [3.0], [4.0]])
    stage.run(loop(), 0)
    assert model.weight.item() == 0.0


def test_epochs_are_limited() -> None:
    stage, model = fitted([[float(100 - k)] for k in range(60)], most=3, improvement=0.0)
    stage.run(loop(), 0)
    assert model.weight.item() == 6.0


def test_a_run_forgets_the_scores_of_the_one_before() -> None:
    stage, model = fitted([[5.0], [3.0], [4.0], [4.5], [4.0], [6.0], [6.0]])
    stage.run(loop(), 0)
    assert model.weight.item() == 2.0
    with torch.no_grad():
        model.weight += 4.0  # now at a loss of 4.5, worse than the 3.0 of before
    stage.run(loop(), 1)
    assert model.weight.item() == 8.0


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7])
def test_a_killed_walk_goes_on_where_it_was(stop_at: int) -> None:
    losses = [[5.0], [3.0], [2.0], [2.5], [2.2], [9.0]]
    whole, expected = fitted(losses)
    whole.run(loop(), 0)
    killed, moved = fitted(losses, stop_at)
    with pytest.raises(KeyboardInterrupt):
        killed.run(loop(), 0)
    saved, weight = killed.state_dict(), moved.weight.detach().clone()
    again, model = fitted(losses)
    again.load_state_dict(saved)
    with torch.no_grad():
        model.weight.copy_(weight)
    again.run(loop(), 0)
    assert torch.equal(model.weight, expected.weight) and not again.running


def test_periodic_stages_run_from_the_first_round_on() -> None:
    model = nn.Linear(1, 1, bias=False)
    count = Count(model)
    stage = Periodic("often", 3, (count,))
    seen = []
    for turn in range(7):
        stage.run(loop(), turn)
        seen.append(count.runs)
    assert seen == [1, 1, 1, 2, 2, 2, 3]
