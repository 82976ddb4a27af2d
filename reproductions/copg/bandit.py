"""A: the paper's bandit (section 5.1), with its constants; 400 epochs instead of 100, so that the limit is seen."""

from __future__ import annotations

import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Clock
from ascent.core.plan import Adam
from ascent.core.random import generator
from ascent.training.steps import Stepper

REWARD = torch.tensor([2.5, 2.0, 1.0], dtype=torch.float64)
MU = torch.tensor([[0.1, 0.2, 0.7], [0.05, 0.05, 0.9]], dtype=torch.float64)
BETA, PAIRS, BATCH, EPOCHS, BANDIT_SEEDS = 0.5, 10_000, 512, 400, 10
BANDIT = {
    "CoPG": ("copg", {}),
    "IPO": ("ipo", {}),
    "PG, b = 0": ("naive_pg", {}),
    "PG, b = E[R]": ("naive_pg", {"baseline": "column"}),
    "PG, b = E[R] - beta KL": ("naive_pg", {"baseline": "column"}),
}


def bandit_objective(log_pi: torch.Tensor) -> torch.Tensor:
    """J = E R - beta KL(pi || uniform) of log-probabilities [..., 3]."""
    return (log_pi.exp() * (REWARD - BETA * (log_pi - torch.log(torch.tensor(1 / 3))))).sum(-1)


def bandit(arm: str, seeds: int, epochs: int) -> list[list[float]]:
    """Regret after each epoch, by seed. The seeds are rows of one table of logits, so they learn side by side."""
    slug, options = BANDIT[arm]
    method = ascent.method(slug, beta=BETA, **options).replace(step=Adam(1e-3, max_gradient_norm=None))
    pairs = torch.stack(
        [
            torch.stack(
                [
                    torch.multinomial(mu, PAIRS, True, generator=generator("bandit", seed, side))
                    for side, mu in enumerate(MU)
                ],
                1,
            )
            for seed in range(seeds)
        ]
    )  # [seeds, pairs, 2]
    reward = REWARD[pairs]
    if slug == "ipo":
        first = torch.sigmoid(reward[..., 0] - reward[..., 1])
        draw = torch.stack([torch.rand(PAIRS, generator=generator("label", seed)) for seed in range(seeds)])
        reward = torch.stack([(draw < first).double(), (draw >= first).double()], -1)
    logits = torch.nn.Parameter(torch.zeros(seeds, 3, dtype=torch.float64))
    stepper = Stepper(method.step, [("logits", logits)])
    best = bandit_objective(torch.log_softmax(REWARD / BETA, -1))
    size = BATCH * seeds * 2
    whose = torch.arange(seeds).repeat_interleave(2).repeat(BATCH)
    blank = Decisions(
        mask=torch.ones(size, 1, dtype=torch.bool),
        reference_log_prob=torch.full((size, 1), 1 / 3, dtype=torch.float64).log(),
        group=torch.arange(size) // 2,
    )
    regret = []
    for epoch in range(epochs):
        shuffles = [generator("order", seed, epoch) for seed in range(seeds)]
        order = torch.stack([torch.randperm(PAIRS, generator=draw) for draw in shuffles], 1)
        arms = pairs[torch.arange(seeds), order].reshape(-1, 1)  # pair by pair, seed by seed: a batch is a slice
        rewards = reward[torch.arange(seeds), order].reshape(-1, 1)
        for first in range(0, PAIRS // BATCH * size, size):
            rows = blank.replace(reward=rewards[first : first + size])
            log_pi = torch.log_softmax(logits, -1)
            if "column" in options.values():
                now = log_pi.detach()
                worth = (now.exp() * REWARD).sum(-1) if arm == "PG, b = E[R]" else bandit_objective(now)
                rows = rows.with_extras({"baseline": worth[whose]})
            evaluation = Evaluation(log_prob=log_pi[whose, arms[first : first + size, 0]][:, None])
            loss, _ = method.loss(evaluation, rows)
            (seeds * loss).backward()  # the mean over all rows is 1 / seeds of each table's own
            stepper.step(Clock())
        regret.append(best - bandit_objective(torch.log_softmax(logits.detach(), -1)))
    return torch.stack(regret, 1).tolist()
