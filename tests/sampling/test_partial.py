"""Partial rollouts: tokens of several policies in one response, each with its own log-prob, resumed exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.sampling.partial import PartialSampler
from ascent.sampling.text import Distribution
from ascent.training import checkpoint
from ascent.worlds.text.arithmetic import Arithmetic

LOG_PROB = frozenset({"log_prob"})


def policy(seed: int = 1) -> CausalPolicy:
    made = embedded(Arithmetic().alphabet, seed=seed, hidden=32, layers=2, heads=2, context=64)
    with torch.no_grad():
        made.model.model.norm.weight *= 2.0
    return made


def sampler(made: CausalPolicy, **changes: Any) -> PartialSampler:
    settings: dict[str, Any] = {
        "prompts_per_step": 3, "group_size": 2, "max_new_tokens": 20, "segment_tokens": 4, **changes,
    }  # fmt: skip
    return PartialSampler(made, Arithmetic(), **settings)


def rows(decisions: Decisions) -> dict[int, list[int]]:
    return {
        key: action[mask].tolist()
        for key, action, mask in zip(decisions.key.tolist(), decisions.action, decisions.mask, strict=True)
    }


def test_an_act_returns_whole_groups_and_lets_others_wait() -> None:
    drawn = sampler(policy())
    found = drawn.act(0)
    assert found.group.bincount().unique().tolist() in ([2], [0, 2]) and len(found) == 6
    assert drawn.consumed == len(drawn.growing) + 3 and 3 <= len(drawn.growing) <= 9
    assert any(row.tokens for group in drawn.growing for row in group)
    assert bool((found.mask.sum(1) <= 20).all())
    ended = (found.terminated | found.truncated).sum(1)
    assert bool((ended == 1).all())
    assert drawn.exact is False


def test_every_token_has_the_log_prob_of_the_policy_that_drew_it() -> None:
    made, others = policy(), [policy(5), policy(6)]
    drawn = sampler(made)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    policies = [before, *[other.state_dict() for other in others]]
    mixed = 0
    for step, weights in enumerate(policies):
        made.load_state_dict(weights)
        found = drawn.act(step)
        assert bool((found.policy_version[found.mask] <= step).all())
        for version in found.policy_version[found.mask].unique().tolist():
            made.load_state_dict(policies[version])
            now = made.evaluate(found, LOG_PROB).log_prob
            own = found.mask & (found.policy_version == version)
            torch.testing.assert_close(now[own], found.behaviour_log_prob[own], atol=1e-5, rtol=0)
        made.load_state_dict(weights)
        several = [len(v[m].unique()) > 1 for v, m in zip(found.policy_version, found.mask, strict=True)]
        mixed += sum(several)
    assert mixed > 0, "no response was resumed by a later policy"


def test_under_one_policy_segments_do_not_matter_to_the_distribution() -> None:
    """Greedy-like draws are the same however a response is cut: what a segment reads is the whole text so far."""
    made = policy()
    cold = Distribution(temperature=1e-3)
    whole, cut = (rows(sampler(made, segment_tokens=size, distribution=cold, in_flight=1).act(0)) for size in (20, 3))
    assert whole == cut


def test_it_resumes_bit_for_bit(tmp_path: Any) -> None:
    made = policy()
    straight, first = sampler(made), sampler(made)
    expected = [straight.act(step) for step in range(3)]
    first.act(0)
    path = checkpoint.save(tmp_path, 1, {"sampler": first.state_dict()})
    second = sampler(made)
    second.load_state_dict(checkpoint.load(path)["sampler"])
    for step in (1, 2):
        again = second.act(step)
        for name, tensor in expected[step].to_tensors().items():
            assert torch.equal(tensor, again.to_tensors()[name]), name


def test_processes_share_the_prompts() -> None:
    made = policy()
    parts = [sampler(made, prompts_per_step=4, share=(rank, 2)) for rank in (0, 1)]
    groups = [set(part.act(0).group.tolist()) for part in parts]
    assert not groups[0] & groups[1] and all(len(group) == 2 for group in groups)
    assert parts[0].consumed == parts[1].consumed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"segment_tokens": 0}, "segment_tokens must be"),
        ({"in_flight": 0}, "in_flight must be"),
        ({"distribution": Distribution(temperature=0.0)}, "temperature > 0"),
        ({"distribution": Distribution(stop=(";",))}, "no stop strings"),
        ({"share": (2, 2)}, "share must be"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sampler(policy(), **changes)
