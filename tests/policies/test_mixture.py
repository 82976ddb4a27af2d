"""Routes of a mixture of experts: recorded where they belong, replayed exactly, with a router that still learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, OlmoeConfig, OlmoeForCausalLM

from ascent.core.decisions import Decisions, MissingColumn, concatenate
from ascent.policies.embedded import embedded
from ascent.policies.mixture import MixturePolicy, Replaying, embedded_mixture
from ascent.policies.routing import NATURAL, changed, routed, routers

LOG_PROB, OLD = frozenset({"log_prob"}), frozenset({"old_log_prob"})
ROUTES = frozenset({"old_log_prob", "routes", "prompt_routes"})
CHANGED = frozenset({"log_prob", "probe:routes_changed"})


def mixture(seed: int = 0, scale: float = 2.0) -> MixturePolicy:
    """A policy whose routers disagree with those of another seed; in float64."""
    policy = embedded_mixture("0123456789+=", seed, experts=4, hidden=16, layers=3, heads=2, context=32)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(scale)
    policy.base.set_experts_implementation("eager")
    return policy.double()


def batch() -> Decisions:
    """Two prompts of 4 and 2 tokens, three responses of 4, 1 and 3 tokens, two of them to one prompt."""
    length = torch.tensor([[4], [1], [3]])
    return Decisions(
        mask=torch.arange(4) < length,
        context={
            "prompt": torch.tensor([[5, 6, 14, 7], [0, 0, 8, 9]]),
            "prompt_mask": torch.tensor([[True] * 4, [False, False, True, True]]),
        },
        context_row=torch.tensor([0, 1, 0]),
        action=torch.tensor([[5, 9, 14, 2], [2, 0, 0, 0], [6, 7, 2, 0]]),
        reward=torch.zeros(3, 4, dtype=torch.float64),
    )


def recorded(policy: MixturePolicy, rows: Decisions) -> Decisions:
    return policy.annotate(rows, ROUTES)


def foreign(rows: Decisions) -> Decisions:
    """Routes of another policy."""
    other = recorded(mixture(seed=1), rows)
    return rows.with_extras({name: other.extras[name] for name in ("routes", "prompt_routes")})


def test_replaying_its_own_routes_changes_no_bit() -> None:
    policy = mixture()
    rows = recorded(policy, batch())
    natural = policy.evaluate(rows, LOG_PROB).log_prob
    policy.replays = True
    assert torch.equal(policy.evaluate(rows, LOG_PROB).log_prob, natural)
    assert torch.equal(policy.annotate(rows, OLD).old_log_prob, rows.old_log_prob)
    natural.sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}
    policy.zero_grad()
    policy.evaluate(rows, LOG_PROB).log_prob.sum().backward()
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name


def test_the_ratio_of_r2_is_one_before_the_first_update_and_the_routes_hold_after_it() -> None:
    policy = mixture()
    rows = recorded(policy, batch())
    policy.replays = True
    ratio = (policy.evaluate(rows, LOG_PROB).log_prob - rows.old_log_prob).exp()
    assert torch.equal(ratio[rows.mask], torch.ones(8, dtype=torch.float64))
    before = rows.extras["routes"].clone()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    now = policy.evaluate(rows, CHANGED)
    assert float(now.probes["routes_changed"].max()) > 0 and torch.equal(rows.extras["routes"], before)
    # Under replay the model computes with the recorded experts alone: those of no route get no gradient.
    policy.zero_grad()
    now.log_prob.sum().backward()
    used = set(rows.extras["routes"][..., 0, :].flatten().tolist())
    used |= set(rows.extras["prompt_routes"][..., 0, :].flatten().tolist())
    first = policy.base.model.layers[0].mlp.experts.gate_up_proj.grad
    assert {expert for expert in range(4) if bool((first[expert] != 0).any())} <= used - {NATURAL}


def test_a_replayed_set_keeps_the_routers_gradient_and_it_is_that_of_finite_differences() -> None:
    policy = mixture()
    rows = foreign(batch())
    policy.replays = True
    policy.evaluate(rows, LOG_PROB).log_prob.sum().backward()
    for router in routers(policy.base):
        assert float(router.weight.grad.abs().max()) > 1e-6
    router = routers(policy.base)[1]
    direction, step = router.weight.grad / router.weight.grad.norm(), 1e-3
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            router.weight.add_(sign * step * direction)
            ends.append(float(policy.evaluate(rows, LOG_PROB).log_prob.sum()))
            router.weight.sub_(sign * step * direction)
    # The router's softmax is in single precision, as the model has it, so no smaller step is possible.
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(router.weight.grad.norm()), rel=1e-3)


def reference(policy: MixturePolicy, ids: list[int], routes: Tensor) -> Tensor:
    """Log-probs of all next tokens of one text, with the routers replaced by plain loops over positions."""

    def answer(layer: int) -> object:
        def forward(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            router = routers(policy.base)[layer]
            logits = hidden.reshape(-1, hidden.shape[-1]) @ router.weight.T
            gates, experts = [], []
            for position, row in enumerate(logits):
                shares = row.softmax(-1, dtype=torch.float)
                chosen = [int(number) for number in routes[position, layer]]
                if NATURAL in chosen:
                    chosen = shares.topk(2).indices.tolist()
                total = sum(shares[expert] for expert in chosen)
                gates.append(torch.stack([shares[expert] / total for expert in chosen]))
                experts.append(torch.tensor(chosen))
            return logits, torch.stack(gates).to(logits.dtype), torch.stack(experts)

        return forward

    plain = copy.deepcopy(policy)
    found = routers(plain.base)
    for layer, router in enumerate(found):
        router.forward = answer(layer)
    return plain.base(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1).detach()


def test_routes_of_others_are_replayed_at_their_positions() -> None:
    """Row by row against a plain loop: prompt positions, left padding, shared prompts, ends."""
    policy = mixture()
    rows = foreign(batch())
    policy.replays = True
    found = policy.evaluate(rows, LOG_PROB).log_prob.detach()
    for row, prompt in ((0, [5, 6, 14, 7]), (1, [8, 9]), (2, [5, 6, 14, 7])):
        response = rows.action[row][rows.mask[row]].tolist()
        routes = rows.extras["prompt_routes"][row][rows.extras["prompt_routes"][row, :, 0, 0] != NATURAL]
        assert len(routes) == len(prompt)
        # The route of the last prompt position stands at the first token as well: it is one position.
        assert torch.equal(routes[-1], rows.extras["routes"][row, 0])
        whole = torch.cat([routes, rows.extras["routes"][row, 1 : len(response)]])
        log_probs = reference(policy, prompt + response[:-1], whole)
        for place, token in enumerate(response):
            assert float(found[row, place]) == pytest.approx(float(log_probs[len(prompt) - 1 + place, token]), abs=1e-9)
    policy.replays = False
    natural = policy.evaluate(rows, LOG_PROB).log_prob
    assert float((natural.detach() - found)[rows.mask].abs().max()) > 1e-3, "the foreign routes are others"


def test_padding_order_and_parts_do_not_matter() -> None:
    policy = mixture()
    rows = foreign(batch())
    policy.replays = True
    whole = policy.evaluate(rows, CHANGED)
    order = torch.tensor([2, 0, 1])
    for places in (order, torch.tensor([1]), torch.tensor([0, 2])):
        part = policy.evaluate(rows.rows(places), CHANGED)
        torch.testing.assert_close(part.log_prob, whole.log_prob[places], atol=1e-9, rtol=0)
        assert torch.equal(part.probes["routes_changed"], whole.probes["routes_changed"][places])
    # Joined to a collection with longer prompts, the prompts are padded on the right, and so are their routes.
    longer = Decisions(
        mask=torch.ones(1, 6, dtype=torch.bool),
        context={"prompt": torch.tensor([[9, 8, 14, 6, 5, 9]]), "prompt_mask": torch.ones(1, 6, dtype=torch.bool)},
        context_row=torch.tensor([0]),
        action=torch.tensor([[5, 6, 7, 8, 9, 2]]),
        reward=torch.zeros(1, 6, dtype=torch.float64),
    )
    joined = policy.evaluate(concatenate([rows, foreign(longer)]), LOG_PROB).log_prob
    torch.testing.assert_close(joined[:3, :4], whole.log_prob, atol=1e-9, rtol=0)
    torch.testing.assert_close(joined[3], policy.evaluate(foreign(longer), LOG_PROB).log_prob[0], atol=1e-9, rtol=0)


def test_columns_hold_nothing_beyond_prompts_and_ends() -> None:
    rows = recorded(mixture(), batch())
    assert rows.extras["routes"].shape == (3, 4, 3, 2) and rows.extras["prompt_routes"].shape == (3, 4, 3, 2)
    assert torch.equal((rows.extras["routes"] != NATURAL).all(-1).all(-1), rows.mask)
    real = torch.tensor([[True] * 4, [False, False, True, True], [True] * 4])
    assert torch.equal((rows.extras["prompt_routes"] != NATURAL).all(-1).all(-1), real)


def test_a_route_is_compared_as_a_set() -> None:
    one = torch.tensor([[[0, 1], [2, 3]]])
    assert float(changed(one, torch.tensor([[[1, 0], [2, 3]]]))) == 0.0
    assert float(changed(one, torch.tensor([[[1, 2], [2, 3]]]))) == 0.5
    assert float(changed(one, torch.tensor([[[NATURAL, NATURAL], [0, 3]]]))) == 0.5


def test_a_trainer_replays_and_the_policy_itself_does_not() -> None:
    policy = mixture()
    rows = foreign(batch())
    natural = policy.evaluate(rows, LOG_PROB).log_prob
    trainer = Replaying(policy)
    assert trainer.splittable
    replayed = trainer.evaluate(rows, LOG_PROB).log_prob
    assert not torch.allclose(replayed, natural)
    assert torch.equal(trainer.annotate(rows, OLD).old_log_prob, replayed)
    assert torch.equal(policy.evaluate(rows, LOG_PROB).log_prob, natural)
    # R2: what it is asked to record is natural, whatever stands there.
    assert torch.equal(trainer.annotate(rows, ROUTES).old_log_prob, natural)


def test_missing_routes_are_refused_by_name() -> None:
    policy = Replaying(mixture())
    with pytest.raises(MissingColumn, match="'prompt_routes'"):
        policy.evaluate(batch(), LOG_PROB)
    with pytest.raises(MissingColumn, match="'prompt_routes'"):
        policy.annotate(batch(), OLD)


def test_dense_models_and_recomputed_forwards_are_refused() -> None:
    dense = embedded("01+", hidden=16, layers=1, heads=2)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no router that is known"):
        MixturePolicy(dense.model, dense.tokenizer)
    assert isinstance(dense.model, LlamaForCausalLM)
    policy = mixture()
    policy.base.model.layers[0].gradient_checkpointing = True
    with pytest.raises(ValueError, match="recomputed forward"), routed(policy.base):
        pass
    with pytest.raises(ValueError, match="per_token must be >= 1 and < experts=4; got 4"):
        embedded_mixture("01", experts=4, per_token=4)


def test_a_replay_of_another_length_and_a_router_left_out_are_refused() -> None:
    policy = mixture()
    ids = torch.tensor([[5, 6, 7]])
    short = torch.zeros(2, 3, 2, dtype=torch.int16)
    with pytest.raises(ValueError, match="replay holds 2 positions; the forward has 3"), routed(policy.base, short):
        policy.base(input_ids=ids)
    with pytest.raises(RuntimeError, match=r"routers ran \[1, 0, 0\] times"), routed(policy.base):
        routers(policy.base)[0](torch.zeros(1, 3, 16, dtype=torch.float64))
    plain = policy.base(input_ids=ids).logits
    assert torch.equal(plain, policy.base(input_ids=ids).logits)
    assert not any(router._forward_hooks for router in routers(policy.base)), "hooks do not outlive their forward"


SIZES = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (MixtralForCausalLM, MixtralConfig(num_local_experts=4, pad_token_id=0, **SIZES)),
        (OlmoeForCausalLM, OlmoeConfig(num_experts=4, norm_topk_prob=False, pad_token_id=0, **SIZES)),
        (OlmoeForCausalLM, OlmoeConfig(num_experts=4, norm_topk_prob=True, pad_token_id=0, **SIZES)),
    ],
)
def test_other_families_replay_their_own_routes_without_a_bit(kind: type, config: MixtralConfig | OlmoeConfig) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with routed(model) as record:
        natural = model(input_ids=ids).logits
    assert record.routes().shape == (4, 2, 2)
    with routed(model, record.routes()):
        assert torch.equal(model(input_ids=ids).logits, natural)


def test_router_noise_moves_routes_reproducibly() -> None:
    """Noise is a function of a position's own logits: the same beside other rows."""
    policy = mixture()
    ids = torch.tensor([[5, 6, 7], [8, 9, 14]])
    found = []
    for noise in (0.0, 0.5):
        with routed(policy.base, noise=noise) as record, torch.no_grad():
            logits = policy.base(input_ids=ids).logits
        found.append((logits, record.routes().unflatten(0, (2, 3))))
    assert float(changed(found[0][1], found[1][1]).mean()) > 0.05
    with routed(policy.base, noise=0.5), torch.no_grad():
        alone = policy.base(input_ids=ids[1:]).logits
    torch.testing.assert_close(alone[0], found[1][0][1], atol=1e-6, rtol=0)
