"""The task: for each of 16 prompts a secret code of 6 letters and an end token; reward 1 for exactly that, else 0.

Letters 1 to 8 are neat, 9 to 15 are noise: who wrote noise tends to ramble on, up to 16 tokens, so failures are longer
than successes, the paper's first cause of imbalance. The policy is a network of prompt, place and last token;
it starts as supervised learning left it on demonstrations of which most are wrong. Reward, entropy and length of a
policy are exact sums over all strings' prefixes, not estimates.
"""

from __future__ import annotations

import copy
import functools

import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.random import generator, key, uniform
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Dataset
from ascent.training.program import Phase

PROMPTS, TOKENS, NEAT, CODE, LENGTH = 16, 16, 8, 6, 16
RIGHT, RAMBLE = 0.75, 0.85
"""Chance of a right token in a demonstration, and of going on where the last token was noise or the code is over."""


def features(prompt: torch.Tensor, place: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """[..., 48] one-hot prompt, place and last token."""
    parts = ((prompt, PROMPTS), (place, LENGTH), (last, TOKENS))
    return torch.cat([torch.nn.functional.one_hot(number, size) for number, size in parts], -1).float()


@functools.cache
def codes(seed: int) -> torch.Tensor:
    """[16, 7] the secret of each prompt, closed by the end token 0."""
    letters = torch.randint(1, NEAT + 1, (PROMPTS, CODE), generator=generator("codes", seed))
    return torch.cat([letters, torch.zeros(PROMPTS, 1, dtype=torch.int64)], 1)


GRID = torch.meshgrid(torch.arange(PROMPTS), torch.arange(LENGTH), torch.arange(TOKENS), indexing="ij")


@torch.no_grad()
def table(policy: ActorCritic) -> torch.Tensor:
    """Log-probabilities [16, 16, 16, 16] of the next token by prompt, place and last token."""
    return torch.log_softmax(policy.actor(features(*GRID)).double(), -1)


def exact(log_pi: torch.Tensor, seed: int) -> dict[str, float]:
    """Chance of success, entropy of a response (nats) and its length, averaged over the prompts."""
    secret, rows = codes(seed), torch.arange(PROMPTS)
    log_right, last = torch.zeros(PROMPTS, dtype=torch.float64), torch.zeros(PROMPTS, dtype=torch.int64)
    for place in range(CODE + 1):
        log_right += log_pi[rows, place, last, secret[:, place]]
        last = secret[:, place]
    state = torch.zeros(PROMPTS, TOKENS, dtype=torch.float64)
    state[:, 0] = 1.0
    entropy = length = 0.0
    for place in range(LENGTH):
        now = log_pi[:, place]
        length += float(state.sum()) / PROMPTS
        entropy -= float((state[..., None] * now.exp() * now).sum()) / PROMPTS
        state = (state[..., None] * now.exp()).sum(1)
        state[:, 0] = 0.0  # ended
    return {"reward": float(log_right.exp().mean()), "entropy": entropy / length, "length": length}


def respond(log_pi: torch.Tensor, prompt: torch.Tensor, name: int, seed: int) -> Decisions:
    """One response a row, scored; groups are rows in order of 8."""
    rows = len(prompt)
    draws = uniform(torch.full((rows, 1), name), torch.arange(rows)[:, None], torch.arange(LENGTH))
    last, open_ = torch.zeros_like(prompt), torch.ones(rows, dtype=torch.bool)
    seen, action, mask, log_prob = [], [], [], []
    for place in range(LENGTH):
        now = log_pi[prompt, place, last]
        token = (draws[:, place, None] >= now.exp().cumsum(-1)).sum(-1).clamp(max=TOKENS - 1)
        token = torch.where(open_, token, 0)
        seen.append(features(prompt, torch.full_like(prompt, place), last))
        action.append(token)
        mask.append(open_)
        log_prob.append(now.gather(1, token[:, None])[:, 0].float())
        last, open_ = token, open_ & (token > 0)
    mask_, action_ = torch.stack(mask, 1), torch.stack(action, 1)
    right = (action_[:, : CODE + 1] == codes(seed)[prompt]).all(1)
    final = mask_ & ~torch.cat([mask_[:, 1:], torch.zeros(rows, 1, dtype=torch.bool)], 1)
    return Decisions(
        mask=mask_,
        context={"observation": torch.stack(seen, 1)},
        action=action_,
        behaviour_log_prob=torch.stack(log_prob, 1),
        reward=(final & right[:, None]).float(),
        group=torch.arange(rows) // 8,
    )


def demonstrations(seed: int, rows: int = 4000) -> Decisions:
    """Written by a table: right with chance 0.75 at each place; noise and what is too long go on with 0.85."""
    near = torch.full((PROMPTS, LENGTH, TOKENS, TOKENS), 1.0, dtype=torch.float64)
    near[..., 0] = 0.0
    near = near / near.sum(-1, keepdim=True) * RAMBLE
    near[..., 0] = 1 - RAMBLE
    right = torch.nn.functional.one_hot(codes(seed), TOKENS).double()
    noise = torch.cat([torch.zeros(NEAT + 1), torch.ones(TOKENS - NEAT - 1)]).double()
    near[:, : CODE + 1, : NEAT + 1] = (RIGHT * right + (1 - RIGHT) * noise / noise.sum())[:, :, None]
    draw = generator("demonstrations", seed)
    prompt = torch.randint(0, PROMPTS, (rows,), generator=draw)
    return respond(near.log().clamp(min=-30), prompt, key("demonstrations", seed), seed)


@functools.cache
def start(seed: int) -> ActorCritic:
    """The policy after supervised learning; copy it before training on."""
    policy = ActorCritic(PROMPTS + LENGTH + TOKENS, Head("categorical", (TOKENS,)), critic=False, seed=seed)
    content = demonstrations(seed)
    content = content.replace(group=torch.arange(len(content)))
    learn = Learn("policy", policy, ascent.method("sft", learning_rate=5e-3), Dataset(content, 128, seed))
    Loop(System({"policy": policy}, {}, (Phase("sft", (learn,), 150),))).run()
    return policy


class Sampler:
    """16 prompts, 8 responses each, from the present policy."""

    def __init__(self, policy: ActorCritic, seed: int) -> None:
        self.policy, self.seed, self.consumed = policy, seed, 0

    def act(self, step: int) -> Decisions:
        self.consumed += PROMPTS
        prompt = torch.arange(PROMPTS).repeat_interleave(8)
        return respond(table(self.policy), prompt, key("act", self.seed, step), self.seed)


def fresh_start(seed: int) -> ActorCritic:
    return copy.deepcopy(start(seed))
