"""Decoders of every architecture grow their rows as the whole forward would."""

from __future__ import annotations

import pytest
import torch

from ascent.policies.causal import CausalPolicy
from ascent.sampling.choose import decoder_for
from ascent.sampling.decode import Decoder, draw, restricted
from tests.policies.test_causal import SMALL, tiny


def whole(policy: CausalPolicy, ids: list[int]) -> torch.Tensor:
    return policy.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("prompts", [["12+3=", "7+8="], ["12+3=", "70+8="]])
@torch.no_grad()
def test_decoding_equals_the_whole_forward(family: str, prompts: list[str]) -> None:
    policy = tiny(family)
    rows = [policy.encode_prompt(prompt) for prompt in prompts for _ in range(2)]
    decoder: Decoder = decoder_for(policy)
    logits = decoder.start(*policy.pad_prompts(rows[::2]), 2, 6)
    for position in range(6):
        expected = torch.stack([whole(policy, ids) for ids in rows])
        torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
        if position == 2:
            decoder.keep(torch.tensor([0, 2, 3]))
            rows = [rows[0], rows[2], rows[3]]
        tokens = torch.tensor([4 + (3 * position + place) % 10 for place in range(len(rows))])
        rows = [[*ids, int(token)] for ids, token in zip(rows, tokens, strict=True)]
        logits = decoder.step(tokens)


def test_inverse_cumulative_draws() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log().repeat(5, 1)
    uniform = torch.tensor([0.0, 0.0999, 0.1001, 0.3001, 1 - 2**-53], dtype=torch.float64)
    tokens, log_probs = draw(logits, uniform, 1.0, 0, 1.0)
    assert tokens.tolist() == [0, 0, 1, 2, 2]
    torch.testing.assert_close(log_probs.exp(), torch.tensor([0.1, 0.1, 0.2, 0.7, 0.7]))


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for place in (0.0, 0.4999, 0.5, 1 - 2**-53):
        tokens, _ = draw(logits, torch.tensor([place], dtype=torch.float64), 1.0, 0, 1.0)
        assert tokens.item() in (1, 3)


def test_restrictions_keep_at_least_the_likeliest() -> None:
    logits = torch.tensor([[2.0, 1.0, 3.0, 0.0]])
    assert restricted(logits, 1, 1.0).isfinite().tolist() == [[False, False, True, False]]
    assert restricted(logits, 0, 1e-9).isfinite().tolist() == [[False, False, True, False]]
    assert restricted(logits, 9, 1.0).isfinite().all()


def test_greedy_takes_the_likeliest() -> None:
    tokens, log_probs = draw(torch.tensor([[0.0, 5.0, 1.0]]), torch.tensor([0.99]), 0.0, 0, 1.0)
    assert tokens.tolist() == [1] and log_probs.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_recorded_log_prob_is_that_of_the_distribution_in_every_precision(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0]] * 3, dtype=dtype)
    tokens, log_prob = draw(logits, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 1.0, 0, 1.0)
    expected = logits.double().log_softmax(-1)[torch.arange(3), tokens]
    torch.testing.assert_close(log_prob.double(), expected, atol=1e-6, rtol=0)


def accumulated(logits: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The draw by its definition: the whole cumulative distribution in float64."""
    log_probs = logits.double().log_softmax(-1)
    tokens = torch.searchsorted(log_probs.exp().cumsum(-1), uniform[:, None], right=True)
    return tokens[:, 0], log_probs.gather(-1, tokens)[:, 0]


@pytest.mark.parametrize("vocabulary", [17, 1024, 1025, 1536, 5000, 32000])
def test_every_size_of_vocabulary_draws_by_the_definition(vocabulary: int) -> None:
    """Thousands of draws at every scale: a token may differ only where rounding at a boundary moves it."""
    generator = torch.Generator().manual_seed(vocabulary)
    rows = 4000 if vocabulary <= 5000 else 500
    logits = (
        torch.randn(rows, vocabulary, generator=generator)
        * torch.tensor([0.1, 1.0, 4.0, 12.0]).repeat(rows // 4)[:, None]
    )
    logits[::3, : vocabulary // 2] = -torch.inf
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
    tokens, log_prob = draw(logits, uniform, 1.0, 0, 1.0)
    expected, exact = accumulated(logits, uniform)
    assert (tokens != expected).sum() <= 1
    same = tokens == expected
    torch.testing.assert_close(log_prob[same].double(), exact[same], atol=2e-6, rtol=0)


@pytest.mark.parametrize("vocabulary", [5, 5000])
def test_both_ends_of_the_distribution_are_possible_tokens(vocabulary: int) -> None:
    logits = torch.full((2, vocabulary), -torch.inf)
    logits[:, [1, 3]] = torch.tensor([0.0, -20.0])
    uniform = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, uniform, 1.0, 0, 1.0)[0].tolist() == [1, 3]
    alone = torch.full((2, vocabulary), -torch.inf)
    alone[:, -1] = 0.0
    tokens, log_prob = draw(alone, uniform, 1.0, 0, 1.0)
    assert tokens.tolist() == [vocabulary - 1] * 2 and log_prob.tolist() == [0.0, 0.0]
