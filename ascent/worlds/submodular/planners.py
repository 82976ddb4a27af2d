"""What a walker that knows the map could earn: greedy, random, beam search, and every walk of a small map."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ascent.worlds.submodular.maps import MOVES, Map
from ascent.worlds.submodular.set_functions import Bitmap, gains


@dataclass(frozen=True)
class Plan:
    """A walk and its worth F(path)."""

    path: tuple[int, ...]
    worth: float


def greedy(ground: Map) -> Plan:
    """Each move to the neighbour with the largest marginal gain, the first of equals."""
    path = [ground.first]
    running = ground.objective.begin()
    running.add(ground.first)
    for _ in range(ground.horizon):
        options = [ground.moved(path[-1], action) for action in range(len(MOVES))]
        path.append(max(options, key=running.gain))
        running.add(path[-1])
    return Plan(tuple(path), ground.worth(path))


def best_of_random(ground: Map, draws: int = 20000, seed: int = 0) -> Plan:
    """The best of uniformly random walks."""
    actions = np.random.default_rng(seed).integers(len(MOVES), size=(draws, ground.horizon))
    ways = np.array([[ground.moved(cell, action) for action in range(len(MOVES))] for cell in range(ground.cells)])
    cell = np.full(draws, ground.first)
    path = np.empty((draws, ground.horizon + 1), np.int64)
    path[:, 0] = cell
    for moment in range(ground.horizon):
        cell = ways[cell, actions[:, moment]]
        path[:, moment + 1] = cell
    members = np.zeros((draws, ground.cells), bool)
    np.put_along_axis(members, path, True, 1)
    worth = np.concatenate([ground.objective.value(part) for part in np.array_split(members, -(-draws // 1000))])
    best = int(worth.argmax())
    return Plan(tuple(path[best].tolist()), float(worth[best]))


def beam(ground: Map, width: int = 200) -> Plan:
    """The best walk of a beam search that keeps the `width` most valuable different (cell, visited set) pairs."""
    members = np.zeros((1, ground.cells), bool)
    members[0, ground.first] = True
    paths = [(ground.first,)]
    for _ in range(ground.horizon):
        grown: dict[tuple[int, bytes], tuple[tuple[int, ...], Bitmap]] = {}
        for path, visited in zip(paths, members, strict=True):
            for action in range(len(MOVES)):
                cell = ground.moved(path[-1], action)
                now = visited.copy()
                now[cell] = True
                grown.setdefault((cell, now.tobytes()), ((*path, cell), now))
        found = list(grown.values())
        worth = ground.objective.value(np.stack([now for _, now in found]))
        kept = np.argsort(-worth, kind="stable")[:width]
        paths, members = [found[place][0] for place in kept], np.stack([found[place][1] for place in kept])
    return Plan(paths[0], ground.worth(list(paths[0])))


def exhaustive(ground: Map) -> Plan:
    """The best of all 5^horizon walks, for maps of up to about 8 moves."""
    if ground.horizon > 8:
        raise ValueError(f"horizon must be <= 8 to list every walk; got {ground.horizon}. Use beam instead.")
    best = Plan((), -np.inf)
    for actions in product(range(len(MOVES)), repeat=ground.horizon):
        path = [ground.first]
        for action in actions:
            path.append(ground.moved(path[-1], action))
        worth = ground.worth(path)
        if worth > best.worth:
            best = Plan(tuple(path), worth)
    return best


def reference(ground: Map) -> Plan:
    """The best walk known: of greedy, random and beam search."""
    return max(greedy(ground), best_of_random(ground), beam(ground), key=lambda plan: plan.worth)


def marginal(ground: Map, path: tuple[int, ...]) -> list[float]:
    """The gain of every move of a walk, from bitmaps; they add up to F(path) - F({start})."""
    members = np.zeros(ground.cells, bool)
    members[path[0]] = True
    found = []
    for cell in path[1:]:
        found.append(float(gains(ground.objective, members)[cell]))
        members[cell] = True
    return found
