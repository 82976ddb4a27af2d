"""Comparisons of rows, against plain loops over the pairs of a group."""

from __future__ import annotations

import math

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.pairs import BradleyTerry, Preference, deviation, group_cells, on_last, row_log_ratio, row_sum
from ascent.core.random import generator
from ascent.core.term import Term

F64 = torch.float64
LENGTHS = [3, 1, 2, 4, 0, 2, 3]
GROUP = [7, 7, 7, 2, 2, 2, 9]
SCORES = [1.0, 0.0, 1.0, 0.5, 8.0, -0.5, 3.0]  # row 4 decides nothing, group 9 has one row


def rows() -> tuple[Evaluation, Decisions]:
    draw = generator(0, "pairs")
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    reward = torch.zeros(7, 4, dtype=F64)
    for row, (length, score) in enumerate(zip(LENGTHS, SCORES, strict=True)):
        reward[row, max(length - 1, 0)] = score
    log_prob = -torch.rand(7, 4, generator=draw, dtype=F64)
    reference = -torch.rand(7, 4, generator=draw, dtype=F64)
    decisions = Decisions(mask=mask, reward=reward, reference_log_prob=reference, group=torch.tensor(GROUP))
    return Evaluation(log_prob=log_prob.requires_grad_()), decisions


def ratios(evaluation: Evaluation, decisions: Decisions) -> list[float]:
    gap = (evaluation.log_prob - decisions.reference_log_prob).tolist()
    return [sum(gap[row][:length]) for row, length in enumerate(LENGTHS)]


def test_row_quantities_by_loop() -> None:
    evaluation, decisions = rows()
    torch.testing.assert_close(
        row_log_ratio(evaluation, decisions), torch.tensor(ratios(evaluation, decisions), dtype=F64)
    )
    torch.testing.assert_close(
        row_sum(decisions.reward, decisions.mask), torch.tensor([1.0, 0.0, 1.0, 0.5, 0.0, -0.5, 3.0], dtype=F64)
    )
    cell, count, present = group_cells(decisions)
    assert count.tolist() == [3, 3, 3, 2, 2, 2, 1]
    assert present.tolist() == [True, True, True, True, False, True, True]
    assert len(set(cell.tolist())) == 3 and cell[0] == cell[2] != cell[3]
    centred = deviation(torch.tensor([1.0, 0.0, 2.0, 0.5, 9.0, -0.5, 3.0], dtype=F64), cell, count, present)
    torch.testing.assert_close(centred, torch.tensor([0.0, -1.0, 1.0, 0.5, 0.0, -0.5, 0.0], dtype=F64))
    placed = on_last(torch.arange(7, dtype=F64), decisions)
    for row, length in enumerate(LENGTHS):
        assert placed[row].tolist() == [float(row) if column == length - 1 else 0.0 for column in range(4)]


@pytest.mark.parametrize("link", ["sigmoid", "square"])
def test_preference_is_the_mean_over_the_pairs_that_differ(link: str) -> None:
    evaluation, decisions = rows()
    part = Preference(link, beta=0.4)  # type: ignore[arg-type]
    method = Method("pairs", {"preference": Term(part, reduction="token-sum", unit="row")})
    loss, _ = method.loss(evaluation, decisions)
    ratio, losses = ratios(evaluation, decisions), []
    for winner in range(7):
        for loser in range(7):
            decided = LENGTHS[winner] and LENGTHS[loser]
            if decided and GROUP[winner] == GROUP[loser] and SCORES[winner] > SCORES[loser]:
                gap = ratio[winner] - ratio[loser]
                losses.append(math.log(1 + math.exp(-0.4 * gap)) if link == "sigmoid" else (gap - 1.25) ** 2)
    assert len(losses) == 3
    assert loss.item() == pytest.approx(sum(losses) / 3)
    loss.backward()
    slope = evaluation.log_prob.grad
    assert slope is not None
    assert not slope[~decisions.mask].any()  # padding
    assert not slope[6].any()  # no partner
    assert (slope[0, :3] < 0).all() and (slope[1, :1] > 0).all()  # the winner up, the loser down


def test_no_pair_gives_no_loss() -> None:
    evaluation, decisions = rows()
    method = Method("pairs", {"preference": Term(Preference(), reduction="token-sum", unit="row")})
    loss, _ = method.loss(evaluation, decisions.replace(reward=torch.zeros(7, 4, dtype=F64)))
    assert loss.item() == 0.0


def test_bradley_terry_scores_the_last_decisions() -> None:
    _, decisions = rows()
    value = torch.randn(7, 4, generator=generator(1, "values"), dtype=F64).requires_grad_()
    method = Method("reward_model", {"preference": Term(BradleyTerry(), reduction="token-sum", unit="row")})
    loss, metrics = method.loss(Evaluation(log_prob=torch.zeros(7, 4, dtype=F64), value=value), decisions)
    score = [value[row, max(length - 1, 0)].item() for row, length in enumerate(LENGTHS)]
    pairs = [(0, 1), (2, 1), (3, 5)]
    gaps = [score[winner] - score[loser] for winner, loser in pairs]
    assert loss.item() == pytest.approx(sum(math.log(1 + math.exp(-gap)) for gap in gaps) / 3)
    assert metrics["accuracy"].item() == pytest.approx(sum(gap > 0 for gap in gaps) / 3)
    loss.backward()
    assert value.grad is not None
    touched = {(row, column) for row, column in torch.nonzero(value.grad).tolist()}
    assert touched == {(row, LENGTHS[row] - 1) for row in (0, 1, 2, 3, 5)}


def test_the_parts_of_an_update_add_up() -> None:
    _, decisions = rows()
    value = torch.randn(7, 4, generator=generator(2, "values"), dtype=F64)
    whole = Evaluation(log_prob=torch.zeros(7, 4, dtype=F64), value=value)
    method = Method("reward_model", {"preference": Term(BradleyTerry(), reduction="token-sum", unit="row")})
    loss, metrics = method.loss(whole, decisions)
    prepared = method.prepare(decisions, None)
    parts = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5, 6])]
    found = [method.loss(whole.rows(part), prepared.rows(part)) for part in parts]
    assert sum(part.item() for part, _ in found) == pytest.approx(loss.item())
    assert sum(numbers["accuracy"].item() for _, numbers in found) == pytest.approx(metrics["accuracy"].item())
