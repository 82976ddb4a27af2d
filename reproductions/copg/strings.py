"""B and C: strings of tokens 1..15 closed by 0, at most 12 after a prompt of one; the score counts ascending triples.

Reward, reference and so the optimum depend on the position and the last two tokens only: expectations are sums over
tables, no samples.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.random import generator, key, uniform
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.training.annotate import Scorer, log_prob_of
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Dataset, Fresh, Memory
from ascent.training.program import Collect, Phase

TOKENS, LENGTH, PENALTY, TASK_BETA = 16, 12, 0.1, 0.5
STRING_SEEDS, UPDATES, PAIRS_PER_UPDATE, STRING_PAIRS, RATE = 5, 500, 64, 5000, 1e-3
BETAS = {
    "copg": (0.25, 0.5, 1.0, 2.0),
    "dpo": (0.25, 0.5, 1.0, 2.0),
    "ipo": (0.03125, 0.0625, 0.125, 0.25),
    "naive_pg": (0.125, 0.25, 0.5, 1.0),
}
LEVELS = ("on-policy", "reference", "half uniform", "uniform")


def state_features(time: torch.Tensor, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """[..., 44] one-hot position and the two last tokens: all that reward and reference depend on."""
    parts = ((time, LENGTH), (before, TOKENS), (last, TOKENS))
    return torch.cat([torch.nn.functional.one_hot(number, size) for number, size in parts], -1).float()


GRID = torch.meshgrid(torch.arange(LENGTH), torch.arange(TOKENS), torch.arange(TOKENS), indexing="ij")
# [before, last, next]: 1 for an ascending triple, minus the price of a token.
STEP_REWARD = (
    ((GRID[1][0] > 0) & (GRID[1][0] < GRID[2][0]))[..., None] & (GRID[2][0][..., None] < torch.arange(TOKENS))
).double() - PENALTY * (torch.arange(TOKENS) > 0)


@torch.no_grad()
def table(policy: ActorCritic) -> torch.Tensor:
    """Log-probabilities [12, 16, 16, 16] of the next token in every state."""
    return torch.log_softmax(policy.actor(state_features(*GRID)).double(), -1)


def exact(log_pi: torch.Tensor, log_ref: torch.Tensor) -> dict[str, float]:
    """Expected reward, KL to the reference and J, exactly, over uniform prompts."""
    state = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
    state[0, 1:] = 1 / (TOKENS - 1)
    reward = divergence = 0.0
    for now, ref in zip(log_pi, log_ref, strict=True):
        joint = state[..., None] * now.exp()
        reward += float((joint * STEP_REWARD).sum())
        divergence += float((joint * (now - ref)).sum())
        state = joint.sum(0)
        state[:, 0] = 0.0  # ended
    return {"reward": reward, "kl": divergence, "J": reward - TASK_BETA * divergence}


def optimum(log_ref: torch.Tensor) -> float:
    """max J = beta log E_ref exp(R / beta), by backward recursion."""
    value = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
    for ref in reversed(list(log_ref)):
        following = value.expand(TOKENS, -1, -1).clone()
        following[..., 0] = 0.0
        value = TASK_BETA * torch.logsumexp(ref + (STEP_REWARD + following) / TASK_BETA, -1)
    return float(value[0, 1:].mean())


def strings(log_probs: torch.Tensor, which: torch.Tensor, prompt: torch.Tensor, name: int) -> Decisions:
    """A string for each row, drawn by hash of `name`; sampler `which` [N] of `log_probs` [K, 12, 16, 16, 16]."""
    rows = len(prompt)
    draws = uniform(torch.full((rows, 1), name), torch.arange(rows)[:, None], torch.arange(LENGTH))
    before, last, open_ = torch.zeros_like(prompt), prompt, torch.ones(rows, dtype=torch.bool)
    seen, action, mask, reward = [], [], [], torch.zeros(rows)
    for time in range(LENGTH):
        seen.append(state_features(torch.full_like(prompt, time), before, last))
        chance = log_probs[which, time, before, last].exp().cumsum(-1)
        token = (draws[:, time, None] >= chance).sum(-1).clamp(max=TOKENS - 1)
        token = torch.where(open_, token, 0)
        action.append(token)
        mask.append(open_)
        reward += torch.where(open_, STEP_REWARD[before, last, token], 0.0).float()
        before, last, open_ = last, token, open_ & (token > 0)
    mask_ = torch.stack(mask, 1)
    final = mask_ & ~torch.cat([mask_[:, 1:], torch.zeros(rows, 1, dtype=torch.bool)], 1)
    return Decisions(
        mask=mask_,
        context={"observation": torch.stack(seen, 1)},
        action=torch.stack(action, 1),
        reward=torch.where(final, reward[:, None], 0.0),
        group=torch.arange(rows) // 2,
    )


def train(
    policy: ActorCritic,
    method: Method,
    memory: Memory,
    updates: int,
    evaluate: Callable[[], Any],
    before: tuple[Collect, ...] = (),
    scorers: dict[str, Scorer] | None = None,
) -> list[tuple[int, Any]]:
    """Ascent's loop on a data set (or, with a Collect before it, on fresh strings); the curve of (update, scores)."""
    curve: list[tuple[int, Any]] = []

    def measured(step: int) -> dict[str, float]:
        curve.append((step, evaluate()))
        return {}

    learn = Learn("policy", policy, method, memory, scorers=scorers)
    system = System({"policy": policy}, {}, (Phase("train", (*before, learn), updates),), measured)
    Loop(system, evaluate_every=50).run()
    return curve


@functools.cache
def reference(seed: int) -> ActorCritic:
    """pi_ref: supervised learning (the library's sft) of strings of a random Markov grammar."""
    draw = generator("grammar", seed)
    weight = -(torch.log(torch.rand(TOKENS, TOKENS, generator=draw, dtype=torch.float64)) ** 2)
    weight[:, 0] = 0.12 * weight[:, 1:].sum(-1)
    grammar = (weight / weight.sum(-1, keepdim=True)).log().expand(1, LENGTH, TOKENS, -1, -1)
    prompt = torch.randint(1, TOKENS, (4000,), generator=draw)
    content = strings(grammar, torch.zeros_like(prompt), prompt, key("grammar", seed))
    policy = ActorCritic(2 * TOKENS + LENGTH, Head("categorical", (TOKENS,)), critic=False, seed=seed)
    train(policy, ascent.method("sft", learning_rate=3e-3), Dataset(content, 64, seed), 300, lambda: None)
    return policy


class FreshPairs:
    """On-policy pairs: each act samples the present policy."""

    def __init__(self, policy: ActorCritic, seed: int) -> None:
        self.policy, self.seed, self.consumed = policy, seed, 0

    def act(self, step: int) -> Decisions:
        draw = generator("prompt", self.seed, step)
        prompt = torch.randint(1, TOKENS, (PAIRS_PER_UPDATE,), generator=draw).repeat_interleave(2)
        return strings(table(self.policy)[None], torch.zeros_like(prompt), prompt, key("fresh", self.seed, step))


@functools.lru_cache(maxsize=2)
def recorded(level: str, seed: int) -> Decisions:
    """Pairs of a sampler of this level, with the reference's log-probs computed once."""
    ref = reference(seed)
    log_ref = table(ref)
    tempered = torch.log_softmax(log_ref / (1.5 if level == "worse" else 1.0), -1)
    samplers = torch.stack([tempered, torch.full_like(log_ref, 1 / TOKENS).log()])
    draw = generator("data", seed)
    prompt = torch.randint(1, TOKENS, (STRING_PAIRS,), generator=draw).repeat_interleave(2)
    share = {"reference": 0.0, "uniform": 1.0}.get(level, 0.5)
    which = (torch.rand(len(prompt), generator=draw) < share).long()
    content = strings(samplers, which, prompt, key("data", seed))
    with torch.no_grad():
        return content.replace(reference_log_prob=log_prob_of(ref)(content))


def now(policy: ActorCritic, log_ref: torch.Tensor) -> dict[str, float]:
    """The exact scores of a policy."""
    return exact(table(policy), log_ref)


def run_strings(seed: int, slug: str, level: str, betas: tuple[float, ...]) -> dict[str, Any]:
    """One seed of one method on data of one level: exact scores before, along and after, for each beta."""
    ref = reference(seed)
    log_ref = table(ref)
    start, best = exact(log_ref, log_ref)["J"], optimum(log_ref)
    found: dict[str, Any] = {"reference": start, "optimum": best}
    for beta in betas:
        policy = copy.deepcopy(ref)
        method = ascent.method(slug, beta=beta, learning_rate=RATE)
        scores = functools.partial(now, policy, log_ref)
        if level == "on-policy":
            fresh = Fresh()
            collect = Collect("collect", FreshPairs(policy, seed), fresh)
            curve = train(policy, method, fresh, UPDATES, scores, (collect,), {"reference_log_prob": log_prob_of(ref)})
        else:
            curve = train(policy, method, Dataset(recorded(level, seed), PAIRS_PER_UPDATE, seed), UPDATES, scores)
        final = curve[-1][1]
        gain = (final["J"] - start) / (best - start)
        found[str(beta)] = {"curve": [(step, round(score["J"], 5)) for step, score in curve], **final, "gain": gain}
    return found
