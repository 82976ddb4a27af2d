"""DAPO: each of its four repairs by hand."""

from __future__ import annotations

import math

import torch

from ascent.core.centre import Centre
from ascent.core.divergences import Entropy
from ascent.core.registry import method
from ascent.core.term import Term
from tests.methods.groups import LENGTHS, RATIOS, decisions, now, number, surrogate

HALF = math.sqrt(0.5)


def test_clip_higher_and_token_mean_by_hand() -> None:
    loss, _ = method("dapo", eps=0.0, overlong_buffer=0.0).loss(now(), decisions())
    advantage = (HALF, -HALF, -HALF, HALF)
    total = sum(n * surrogate(a, r, 0.2, 0.28) for n, a, r in zip(LENGTHS, advantage, RATIOS, strict=True))
    assert torch.allclose(loss, number(total / sum(LENGTHS)))


def test_upper_bound_alone_is_wider() -> None:
    """A ratio of 1.25 is cut at 1.2 by GRPO and passes DAPO."""
    batch = decisions().replace(old_log_prob=now().log_prob.detach() - math.log(1.25))
    for slug, flows in (("dapo", True), ("grpo", False)):
        evaluation = now()
        method(slug).with_terms(kl=None).loss(evaluation, batch)[0].backward()
        assert evaluation.log_prob.grad is not None
        assert bool((evaluation.log_prob.grad[0, 0] != 0).item()) is flows


def test_dynamic_sampling_refuses_groups_without_a_difference() -> None:
    accept = method("dapo").accept
    assert accept is not None
    assert accept(decisions((1.0, 1.0, 0.0, 1.0))).tolist() == [False, False, True, True]
    assert method("dapo", dynamic_sampling=False).accept is None


def test_overlong_punishment_by_hand() -> None:
    """Budget 4, buffer half of it: 0 up to 2 tokens, -1/2 at 3, -1 at 4. Only row 1 has 3 tokens."""
    built = method("dapo", overlong_buffer=0.5, eps=0.0).replace(
        advantage=method("dapo", overlong_buffer=0.5).advantage.of
    )
    assert built.credit(decisions()).advantage[:, 0].tolist() == [1.0, -0.5, 3.0, 7.0]
    limited = method("dapo", overlong_buffer=1.0, overlong_limit=3, overlong_penalty=3.0)
    assert limited.replace(advantage=limited.advantage.of).credit(decisions()).advantage[:, 0].tolist() == [
        0.0,
        -3.0,
        1.0,
        5.0,
    ]


def test_the_raw_score_decides_what_is_informative() -> None:
    """Responses of equal score and different length stay refused although shaping tells them apart."""
    accept = method("dapo", overlong_buffer=0.5).accept
    assert accept is not None and accept(decisions((1.0, 1.0, 0.0, 1.0))).tolist()[:2] == [False, False]


def test_parts_of_other_papers_fit_in() -> None:
    """DAPO's bounds with RLOO's advantage and an entropy bonus: the sum of the three, written out."""
    mixed = method("dapo").replace(advantage=Centre(leave_one_out=True)).with_terms(entropy=Term(Entropy(), 0.01))
    evaluation = now()
    evaluation = type(evaluation)(log_prob=evaluation.log_prob, entropy=torch.full((4, 3), 2.0, dtype=torch.float64))
    loss, metrics = mixed.loss(evaluation, decisions())
    total = sum(n * surrogate(a, r, 0.2, 0.28) for n, a, r in zip(LENGTHS, (1, -1, -4, 4), RATIOS, strict=True))
    assert torch.allclose(loss, number(total / sum(LENGTHS) - 0.02))
    assert torch.allclose(metrics["loss/entropy"], number(-0.02))


def test_the_punishment_has_a_floor() -> None:
    """Limit 2, buffer 1: 2 tokens lose 1, and so do the 3 tokens of row 1."""
    capped = method("dapo", overlong_buffer=0.5, overlong_limit=2)
    advantage = capped.replace(advantage=capped.advantage.of).credit(decisions()).advantage[:, 0]
    assert advantage.tolist() == [1.0, -1.0, 2.0, 6.0]
