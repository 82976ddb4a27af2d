"""Selectors: counts, order, ties, controls, and what they must not depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part
from ascent.core.random import generator
from ascent.core.selectors import Band, Not, Top, lots


def batch(seed: int = 0, rows: int = 6, columns: int = 7) -> tuple[Evaluation, Decisions]:
    draw = generator(seed, "selectors")
    mask = torch.rand(rows, columns, generator=draw) < 0.7
    entropy = torch.rand(rows, columns, generator=draw, dtype=torch.float64)
    keys = torch.randint(-(2**62), 2**62, (rows,), generator=draw)
    decisions = Decisions(mask=mask, key=keys, group=torch.arange(rows) // 2, advantage=entropy - 0.5)
    return Evaluation(entropy=entropy), decisions


@dataclass(frozen=True)
class Surprise(Part):
    """A score that reads the evaluation and the decisions."""

    needs = frozenset({"entropy", "advantage"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return evaluation.entropy * decisions.advantage


SELECTORS = [
    Top(fraction=0.3),
    Top(fraction=0.3, order="low"),
    Top(fraction=0.3, order="random"),
    Top(fraction=0.3, scope="row"),
    Top(fraction=0.4, scope="group", order="random"),
    Top(Surprise(), 0.5),
    Band(low=0.2, high=0.8),
    Band(low=0.2, fraction=0.1),
    Band(low=0.2, limit=3, order="high"),
    Band(low=0.2, limit=4, control=True),
    Not(Top(fraction=0.2)),
]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), fraction=st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 0.5, 1.0]))
@pytest.mark.parametrize("order", ["high", "low", "random"])
def test_top_keeps_the_same_number_in_every_order(seed: int, fraction: float, order: str) -> None:
    evaluation, decisions = batch(seed)
    kept = Top(fraction=fraction, order=order)(evaluation, decisions)
    assert kept.sum() == math.ceil(fraction * int(decisions.mask.sum()) - 1e-9)
    assert not (kept & ~decisions.mask).any()
    if order != "random" and 0 < fraction < 1:
        inside, outside = evaluation.entropy[kept], evaluation.entropy[decisions.mask & ~kept]
        assert inside.min() > outside.max() if order == "high" else inside.max() < outside.min()


@pytest.mark.parametrize("scope", ["row", "group"])
@pytest.mark.parametrize("order", ["high", "random"])
def test_scopes_rank_within_rows_and_groups(scope: str, order: str) -> None:
    evaluation, decisions = batch(1)
    kept = Top(fraction=0.4, scope=scope, order=order)(evaluation, decisions)
    cells = torch.arange(6) if scope == "row" else decisions.group
    for cell in cells.unique():
        inside = cells == cell
        assert kept[inside].sum() == math.ceil(0.4 * int(decisions.mask[inside].sum()) - 1e-9)
        if order == "high":
            mask = decisions.mask[inside]
            left = evaluation.entropy[inside][mask & ~kept[inside]]
            assert evaluation.entropy[inside][kept[inside]].min() > left.max()


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
def test_rows_may_be_permuted_and_padded(selector: Part) -> None:
    evaluation, decisions = batch(2)
    kept = selector(evaluation, decisions)
    order = torch.randperm(6, generator=generator("order"))
    assert torch.equal(selector(evaluation.rows(order), decisions.rows(order)), kept[order])

    def wider(tensor: Tensor) -> Tensor:
        return torch.cat((tensor.new_zeros(6, 2), tensor, tensor.new_zeros(6, 1)), 1)

    padded = Decisions(
        mask=wider(decisions.mask),
        key=decisions.key,
        group=decisions.group,
        advantage=torch.where(wider(decisions.mask), wider(decisions.advantage), torch.nan),
    )
    entropy = torch.where(padded.mask, wider(evaluation.entropy), torch.nan)
    assert torch.equal(selector(Evaluation(entropy=entropy), padded), wider(kept))


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
def test_calling_twice_gives_the_same_and_an_empty_mask_gives_nothing(selector: Part) -> None:
    evaluation, decisions = batch(3)
    assert torch.equal(selector(evaluation, decisions), selector(evaluation, decisions))
    empty = decisions.replace(mask=torch.zeros_like(decisions.mask))
    assert not selector(evaluation, empty).any()


def test_ties_are_broken_by_the_hash_not_by_the_place() -> None:
    _, decisions = batch(4)
    flat = Evaluation(entropy=torch.zeros(6, 7, dtype=torch.float64))
    high, low = Top(fraction=0.3)(flat, decisions), Top(fraction=0.3, order="low")(flat, decisions)
    random = Top(fraction=0.3, order="random")(None, decisions)
    assert torch.equal(high, low) and torch.equal(high, random)
    assert not torch.equal(high, Top(fraction=0.3, seed=1)(flat, decisions))


def test_lots_are_uniform_and_depend_on_key_and_place() -> None:
    decisions = Decisions(mask=torch.ones(200, 100, dtype=torch.bool), key=torch.arange(200))
    numbers = lots(decisions, 0)
    assert len(numbers.unique()) == 20_000
    assert abs(float(numbers.mean()) - 0.5) < 0.01 and abs(float(numbers.var()) - 1 / 12) < 0.005
    assert torch.equal(lots(decisions.rows(slice(50, 60)), 0), numbers[50:60])
    # Single decisions with a recorded index keep their own numbers, whatever their row.
    indexed = decisions.replace(key=None, index=torch.arange(20_000).reshape(200, 100))
    assert len(lots(indexed.flatten(), 0).unique()) == 20_000
    order = torch.randperm(20_000, generator=generator("lots"))
    assert torch.equal(lots(indexed.flatten().rows(order), 0), lots(indexed.flatten(), 0)[order])


def test_band_takes_what_lies_inside() -> None:
    evaluation, decisions = batch(5)
    entropy, mask = evaluation.entropy, decisions.mask
    assert torch.equal(Band(low=0.3, high=0.6)(evaluation, decisions), mask & (entropy >= 0.3) & (entropy <= 0.6))
    assert torch.equal(Band(high=0.6)(evaluation, decisions), mask & (entropy <= 0.6))
    assert torch.equal(Band()(evaluation, decisions), mask)
    inside = mask & (entropy >= 0.3)
    few = Band(low=0.3, fraction=0.1)(evaluation, decisions)
    assert few.sum() == int(0.1 * int(mask.sum())) and not (few & ~inside).any()
    # At least one, however small the share.
    assert Band(low=0.3, fraction=1e-6)(evaluation, decisions).sum() == 1
    assert not Band(low=0.3, fraction=0.0)(evaluation, decisions).any()
    assert not Band(low=2.0, fraction=0.5)(evaluation, decisions).any()
    top = Band(low=0.3, limit=2, order="high")(evaluation, decisions)
    assert top.sum() == 2 and entropy[top].min() > entropy[mask & ~top].max()
    bottom = Band(low=0.3, limit=2, order="low")(evaluation, decisions)
    assert bottom.sum() == 2 and entropy[bottom].max() < entropy[inside & ~bottom].min()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), limit=st.sampled_from([None, 0, 3, 100]))
def test_the_control_arm_of_a_band_takes_as_many(seed: int, limit: int | None) -> None:
    evaluation, decisions = batch(seed)
    band, control = (Band(low=0.2, high=0.5, limit=limit, control=sham) for sham in (False, True))
    assert band(evaluation, decisions).sum() == control(evaluation, decisions).sum()


def test_the_control_arm_looks_outside_the_band() -> None:
    evaluation, decisions = batch(6, rows=40)
    chosen = Band(low=0.5, control=True)(evaluation, decisions)
    assert (evaluation.entropy[chosen] < 0.5).any()


def test_not_is_the_rest_of_the_mask() -> None:
    evaluation, decisions = batch(7)
    kept = Top()(evaluation, decisions)
    assert torch.equal(Not(Top())(evaluation, decisions), decisions.mask & ~kept)


def test_needs_and_prepares() -> None:
    assert Top().needs == Top().prepares == {"entropy"}
    assert Top("probe:covariance").prepares == {"probe:covariance"}
    assert Top(order="random").needs == frozenset()
    assert Top(scope="group").needs == {"entropy", "group"} and Top(scope="group").prepares == {"entropy"}
    assert Top("advantage").needs == {"advantage"} and Top("advantage").prepares == frozenset()
    assert Top(Surprise()).needs == {"entropy", "advantage"} and Top(Surprise()).prepares == {"entropy"}
    assert Band(Surprise()).prepares == {"entropy"}


def test_scores_by_name() -> None:
    evaluation, decisions = batch(8)
    assert torch.equal(Top("advantage")(None, decisions), Top("entropy")(evaluation, decisions))
    probed = Evaluation(probes={"curvature": -evaluation.entropy})
    assert torch.equal(Top("probe:curvature", order="low")(probed, decisions), Top()(evaluation, decisions))
    with pytest.raises(ValueError, match="'entropy' reads the evaluation"):
        Top()(None, decisions)
    with pytest.raises(MissingColumn, match="'surprise'"):
        Top("surprise")(evaluation, decisions)


def test_range_errors() -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\]; got 1.2"):
        Top(fraction=1.2)
    with pytest.raises(ValueError, match="low must be <= high"):
        Band(low=1.0, high=0.0)
    with pytest.raises(ValueError, match="fraction must be"):
        Band(fraction=-0.1)
    with pytest.raises(ValueError, match="limit must be >= 0 or None; got -1"):
        Band(limit=-1)


def test_top_keeps_ties_and_at_least_so_many() -> None:
    """Of scores 3, 2, 2, 2, 1 the first two places reach into the tie; `keep` takes all of it, `break` one of it."""
    mask = torch.ones(1, 5, dtype=torch.bool)
    score = torch.tensor([[2.0, 3.0, 2.0, 1.0, 2.0]])
    decisions, evaluation = Decisions(mask=mask), Evaluation(entropy=score)
    assert Top(fraction=0.4, ties="keep")(evaluation, decisions).tolist() == [[True, True, True, False, True]]
    broken = Top(fraction=0.4)(evaluation, decisions)
    assert int(broken.sum()) == 2 and bool(broken[0, 1]) and not bool(broken[0, 3])
    assert Top(fraction=0.0, least=1)(evaluation, decisions).tolist() == [[False, True, False, False, False]]
    assert int(Top(fraction=0.0, least=9)(evaluation, decisions).sum()) == 5
    low = Top(fraction=0.4, order="low", ties="keep")(evaluation, decisions)
    assert low.tolist() == [[True, False, True, True, True]]
    nothing = Decisions(mask=mask & False)
    assert not bool(Top(least=1, ties="keep")(evaluation, nothing).any())
    with pytest.raises(ValueError, match="least must be >= 0"):
        Top(least=-1)
    with pytest.raises(ValueError, match="ties must be"):
        Top(ties="some")  # type: ignore[arg-type]
