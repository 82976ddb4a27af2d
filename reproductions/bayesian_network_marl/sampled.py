"""BN-MAPPO in the sampled coordination game."""

from __future__ import annotations

from typing import Any

import torch

import ascent
from ascent.evaluation.team_returns import evaluate_team
from ascent.policies.bayesian_network import BayesianNetwork
from ascent.sampling.teams import TeamSampler
from ascent.systems.trial import Record
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.teams.parallel import Teams
from ascent.worlds.teams.tables import coordination

AGENTS, COPIES, LENGTH, EPISODES = 3, 32, 25, 200
ARMS: dict[str, dict[str, Any]] = {
    "empty (MAPPO)": {"graph": "empty"},
    "complete": {"graph": "complete"},
    "random": {"graph": "random"},
    "learned": {"graph": "learned"},
    "learned, annealed": {"graph": "learned", "anneal": True},
}


def optimum(agents: int, length: int) -> float:
    """The best undiscounted return over `length` steps, by dynamic programming."""
    game = coordination(agents)
    value = torch.zeros(len(game.start), dtype=torch.float64)
    for _ in range(length):
        value = (game.reward + game.transition @ value).amax(-1)
    return float(value @ game.start)


def team(arm: str, rate: float, steps: int, seed: int) -> dict[str, Any]:
    """Train one arm; drawn and most likely play on fresh episodes, as shares of the optimum."""
    method = ascent.method("bayesian_network_marl", learning_rate=rate, **ARMS[arm])
    teams = Teams("ascent/Coordination-v0", COPIES, {"agents": AGENTS})
    policy = BayesianNetwork(
        teams.agents, teams.observation_size, teams.actions, teams.state_size, method.parameters["graph"], seed=seed
    )
    sampler = TeamSampler(policy, teams, LENGTH, seed)
    memory, record = Fresh(), Record()
    collect = Collect("collect", sampler, memory, statistics=sampler.statistics)
    learn = Learn("policy", policy, method, memory, seed=seed)
    system = System({"policy": policy}, {"fresh": memory}, (Phase("train", (collect, learn), steps),))
    Loop(system, [record]).run()
    best = optimum(AGENTS, LENGTH)
    drawn = evaluate_team(policy, teams, EPISODES, seed=0, greedy=False)
    likely = evaluate_team(policy, teams, EPISODES, seed=0)
    return {
        "drawn": float(drawn.returns.mean()) / best,
        "likely": float(likely.returns.mean()) / best,
        "open_drawn": drawn.open_ratio,
        "open_likely": likely.open_ratio,
        "curve": [number / best for number in record.curve("episode_return")],
        "ratio": record.curve("ratio")[0],
    }
