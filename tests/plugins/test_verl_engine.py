"""Two processes, verl's own engine loop: uneven micro-batches, counts over ranks, and the update is still our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here; `make test-plugins` builds its environment")

from tests.plugins.verl_engine import own, rank

CASES: list[tuple[str, dict[str, Any], int, dict[str, Any]]] = [
    ("grpo", {}, 2, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 21}),
    ("dapo", {}, 2, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1}),
    ("reinforce", {"entropy_coefficient": 0.1}, 2, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 21}),
    ("bapo", {}, 1, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 8}),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_update_of_several_processes(case: tuple[str, dict[str, Any], int, dict[str, Any]], tmp_path: Path) -> None:
    slug, parameters, ranks, engineering = case
    expected = own(slug, parameters)
    torch.multiprocessing.spawn(rank, (ranks, str(tmp_path), slug, parameters, engineering), nprocs=ranks)
    found = json.loads((tmp_path / "gradients.json").read_text())
    assert found["parts"] > 1 or ranks == 1
    for gradient, wanted in zip(found["gradients"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(gradient, dtype=torch.float64), wanted, rtol=0, atol=1e-6)
        assert float(wanted.abs().max()) > 1e-4
