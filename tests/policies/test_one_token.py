"""A language model as a set of one-step bandits: equal to whole logits, in chunks, in any batch."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.methods.otr import OneToken
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.policies.one_token import OneTokenPolicy
from ascent.sampling.demonstrations import demonstrations
from ascent.worlds.text.arithmetic import Arithmetic

NEEDS = frozenset({"log_prob", "entropy", "probe:one_token", "probe:one_token_hits"})


@pytest.fixture(scope="module")
def policy() -> CausalPolicy:
    made = embedded(Arithmetic().alphabet, seed=1, hidden=16, layers=1, heads=2, context=40)
    made.model.double()
    # The reference here is the model's own forward, whose norms round to float32 even in float64.
    made._packs = False
    return made


def rows(policy: CausalPolicy, part: OneToken) -> Decisions:
    written = demonstrations(Arithmetic(), policy, 0, 6, 0, 0.0)
    return written.with_extras(part.annotate(written, part.start()))


@pytest.mark.parametrize("estimator", ["sampled", "exact"])
@pytest.mark.parametrize("chunk", [2**22, 100, 1])
def test_chunks_give_the_whole_logits_loss_and_gradient(policy: CausalPolicy, estimator: str, chunk: int) -> None:
    part = OneToken(16, -0.1, 1.3, estimator)  # type: ignore[arg-type]
    decisions = rows(policy, part)
    now = OneTokenPolicy(policy, part.bandit, chunk).evaluate(decisions, NEEDS)
    ids = torch.cat([decisions.context["prompt"], decisions.action], 1)
    seen = torch.cat([decisions.context["prompt_mask"], torch.ones_like(decisions.mask)], 1).long()
    logits = policy.model(
        input_ids=ids, attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0), use_cache=False
    ).logits[:, decisions.context["prompt"].shape[1] - 1 : -1][decisions.mask]
    whole = part.bandit(logits, decisions.action[decisions.mask], decisions.column("one_token_key")[decisions.mask])
    assert torch.allclose(now.column("one_token")[decisions.mask], whole["one_token"], atol=1e-10)
    assert torch.allclose(now.column("one_token_hits")[decisions.mask], whole["one_token_hits"], atol=1e-12)
    assert bool((now.column("one_token")[~decisions.mask] == 0).all())
    parameters = list(policy.model.parameters())
    ours = torch.autograd.grad(now.column("one_token").sum(), parameters)
    theirs = torch.autograd.grad(whole["one_token"].sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


def test_a_position_does_not_depend_on_the_rows_beside_it(policy: CausalPolicy) -> None:
    part = OneToken(16)
    decisions = rows(policy, part)
    wrapped = OneTokenPolicy(policy, part.bandit)
    whole = wrapped.evaluate(decisions, NEEDS).column("one_token")
    alone = wrapped.evaluate(decisions.rows(torch.tensor([3])), NEEDS).column("one_token")
    assert torch.allclose(whole[3:4], alone, atol=1e-10)


def test_without_the_probe_it_is_the_policy(policy: CausalPolicy) -> None:
    part = OneToken(16)
    wrapped = OneTokenPolicy(policy, part.bandit)
    needs = frozenset({"log_prob", "entropy"})
    decisions = rows(policy, part)
    assert torch.equal(wrapped.evaluate(decisions, needs).entropy, policy.evaluate(decisions, needs).entropy)
    assert next(name for name, _ in wrapped.named_parameters()).startswith("policy.")
    assert "old_log_prob" in wrapped.annotate(decisions, frozenset({"old_log_prob"}))


def test_logits_that_change_after_the_head_are_refused(policy: CausalPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_splits", False)
    with pytest.raises(ValueError, match="changes its logits after the head"):
        OneTokenPolicy(policy, OneToken().bandit)
