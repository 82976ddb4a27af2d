"""A second engine samples: its log-probs are its own, its routes are those of its forward, token by token."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.policies.engine import Engine, Precision
from ascent.policies.mixture import MixturePolicy, embedded_mixture
from ascent.policies.routing import NATURAL, changed
from ascent.sampling.decode import DecoderFactory
from ascent.sampling.engine import EngineSampler
from ascent.sampling.text import TextSampler
from ascent.worlds.text.sorting import Sorting

TASK = Sorting()
ROUTES = frozenset({"old_log_prob", "routes", "prompt_routes"})


def loud(policy: CausalPolicy) -> CausalPolicy:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.8)
    return policy


def mixture() -> MixturePolicy:
    policy = loud(embedded_mixture(TASK.alphabet, experts=4, hidden=16, layers=2, heads=2, context=64))
    assert isinstance(policy, MixturePolicy)
    return policy


def sampler(
    policy: CausalPolicy,
    precision: Precision = "float32",
    routes: bool = False,
    noise: float = 0.0,
    activations: bool = False,
    at_once: int | None = None,
) -> EngineSampler:
    def make(copy: CausalPolicy, decoder_of: DecoderFactory) -> TextSampler:
        return TextSampler(copy, TASK, 4, 3, 8, seed=3, rows_at_once=at_once, decoder_of=decoder_of)

    return EngineSampler(Engine(policy, precision, activations), make, routes, noise)


def gap(policy: CausalPolicy, rows: Decisions) -> float:
    """Mean absolute log-ratio of the two engines."""
    old = policy.annotate(rows, frozenset({"old_log_prob"})).old_log_prob
    return float((rows.behaviour_log_prob - old)[rows.mask].abs().mean())


@pytest.mark.parametrize("dense", [True, False])
def test_the_behaviour_is_the_engines_and_the_old_policy_the_trainers(dense: bool) -> None:
    policy = loud(embedded(TASK.alphabet, hidden=16, layers=2, heads=2, context=64)) if dense else mixture()
    exact = sampler(policy)
    assert not exact.exact
    assert gap(policy, exact.act(0)) < 1e-5
    gaps = {name: gap(policy, sampler(policy, name).act(0)) for name in ("bfloat16", "int8", "float8")}
    assert 1e-5 < gaps["bfloat16"] < gaps["int8"] < gaps["float8"]
    # Rounded activations reach the decoder as well: the lean one steps aside.
    assert gap(policy, sampler(policy, "float8", activations=True).act(0)) != pytest.approx(gaps["float8"], rel=1e-3)


def test_an_engine_is_brought_up_to_date_before_every_act() -> None:
    policy = loud(embedded(TASK.alphabet, hidden=16, layers=2, heads=2, context=64))
    acting = sampler(policy)
    acting.act(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.2)
    assert gap(policy, acting.act(1)) < 1e-5


@pytest.mark.parametrize("at_once", [None, 3, 6])
def test_the_routes_at_sampling_are_those_of_the_exact_engine(at_once: int | None) -> None:
    """Token by token and for every prompt position, although finished rows leave the batch on the way."""
    policy = mixture()
    rows = sampler(policy, routes=True, at_once=at_once).act(0)
    assert len(set(rows.mask.sum(1).tolist())) > 1
    bare = rows._copy({"extras": {}})
    trained = policy.annotate(bare, ROUTES)
    for name in ("routes", "prompt_routes"):
        assert rows.extras[name].dtype == torch.int16
        assert torch.equal(rows.extras[name] == NATURAL, trained.extras[name] == NATURAL), name
        assert float(changed(rows.extras[name], trained.extras[name]).max()) == 0.0, name


def test_replaying_the_samplers_routes_brings_the_engines_together() -> None:
    policy = mixture()
    rows = sampler(policy, "float8", routes=True).act(0)
    watched = policy.evaluate(rows, frozenset({"log_prob", "probe:routes_changed"}))
    assert 0 < float(watched.probes["routes_changed"][rows.mask].mean()) < 0.6
    natural = gap(policy, rows)
    policy.replays = True
    assert gap(policy, rows) < natural


def test_router_noise_is_another_engine() -> None:
    policy = mixture()
    rows = sampler(policy, routes=True, noise=0.3).act(0)
    assert gap(policy, rows) > 1e-3
    policy.replays = True
    # The set is replayed, the gates are the trainer's: noise on the logits moves the gates too.
    replayed = gap(policy, rows)
    policy.replays = False
    assert 0 < replayed < gap(policy, rows)


def test_draws_do_not_depend_on_who_is_watched_and_the_cursor_travels() -> None:
    policy = mixture()
    one, two = sampler(policy, "float8"), sampler(policy, "float8", routes=True)
    assert torch.equal(one.act(0).action, two.act(0).action)
    other = sampler(policy, "float8")
    other.load_state_dict(one.state_dict())
    assert other.consumed == one.consumed == 4 and other.max_new_tokens == 8
    assert torch.equal(one.act(1).action, other.act(1).action)


def test_dense_policies_have_no_routes_and_noise_is_not_negative() -> None:
    dense = embedded(TASK.alphabet, hidden=16, layers=1, heads=2, context=64)
    for arguments in ({"routes": True}, {"noise": 0.1}):
        with pytest.raises(ValueError, match="has no router that is known"):
            sampler(dense, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="router_noise must be >= 0; got -1"):
        sampler(dense, noise=-1.0)
