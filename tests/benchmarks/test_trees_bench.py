"""The benchmark of trees times nothing before both sides agree."""

from __future__ import annotations

import numpy as np
import pytest
import trees

pytest.importorskip("gbrl", reason="the published package gbrl is not installed")


def test_a_small_size_is_gated_and_timed() -> None:
    found = trees.measured((48, 3, 2, "oblivious", "cosine"), 1, 4)
    assert found["unequal"] == 0
    assert {"fit", "predict 2048", "predict 8"} <= found.keys()
    assert found["fit"]["ratio"] > 0


def test_other_trees_do_not_pass_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    x, gradient = trees.data(48, 3, 2, 4)
    monkeypatch.setattr(trees.Ensemble, "predict", lambda self, rows: np.zeros((len(rows), 2)))
    with pytest.raises(AssertionError, match="differ from the published package's"):
        trees.gate(x, gradient, trees.TreeShape(4))
