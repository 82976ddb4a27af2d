"""What two processes do together, as a script for torchrun: `launched.py RESULT.json`, written by the first one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from ascent.core.decisions import Decisions
from ascent.training.processes import Processes


def main(result: Path) -> None:
    processes = Processes.launched()
    rank = processes.rank
    found: dict[str, object] = {"count": processes.count, "ranks": processes.everyone(rank)}
    found["anyone"] = [processes.anyone(flag) for flag in (False, rank == 0, rank == 1, True)]

    # Prompts dealt round robin, of lengths 2 and 3, answers of lengths 2 and 4: one process orders them 0, 1, 2, 3.
    width = 2 + 2 * rank
    part = Decisions(
        mask=torch.ones(4, width, dtype=torch.bool),
        context={"prompt": torch.full((2, 2 + rank), rank)},
        context_row=torch.tensor([0, 0, 1, 1]),
        reward=torch.full((4, width), float(rank)),
        group=torch.tensor([rank, rank, rank + 2, rank + 2]),
    )
    whole = processes.gather(part)
    found["group"] = whole.group.tolist()
    found["prompt"] = whole.context["prompt"][whole.context_row, 0].tolist()
    found["length"] = whole.mask.sum(1).tolist()
    blocks = processes.gather(Decisions(mask=torch.ones(2, 1, dtype=torch.bool), index=torch.tensor([rank, rank])))
    found["blocks"] = blocks.index.tolist()

    index = torch.arange(rank, 5, 2)
    found["rows"] = processes.gather_rows({"x": 10 * index}, index, 5)["x"].tolist()
    own = processes.gather_rows({"x": torch.arange(2)} if rank else {}, torch.arange(2 if rank else 0), 2)
    found["rows of one"] = own["x"].tolist()

    layer = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(4)])
    layer[0].grad = torch.full((2,), 1.0 + rank, dtype=torch.float64)
    if rank == 1:
        layer[1].grad = torch.full((2,), 5.0, dtype=torch.float64)
    layer[3].requires_grad_(False)
    processes.sum_gradients(layer)
    found["gradients"] = [None if parameter.grad is None else parameter.grad.tolist() for parameter in layer]

    totals = processes.sum({"loss": torch.tensor(1.0 + rank), **({"kept": torch.tensor(3.0)} if rank else {})})
    found["totals"] = {name: float(metric) for name, metric in totals.items()}
    processes.wait()
    agreed = processes.everyone(json.dumps({name: found[name] for name in found}))
    found["agreed"] = agreed[0] == agreed[1]
    if processes.main:
        result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
