"""How often a question is solved: pass@1, pass@k and mean@n from n samples a question."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.ArrayLike
Array = npt.NDArray[np.float64]


def pass_at_k(correct: Numbers, samples: Numbers, k: int) -> Array:
    """Unbiased probability that at least one of k samples is right, 1 - C(n - c, k) / C(n, k), per question.

    Chen et al. 2021, arXiv:2107.03374, eq. 1, as the product that neither overflows nor cancels.

    Args:
        correct: right samples c of each question, integers in [0, n], any shape.
        samples: samples n of each question, broadcast against `correct`.
        k: in [1, n].

    Raises:
        ValueError: a count outside its range.
    """
    right, drawn = np.broadcast_arrays(np.asarray(correct, dtype=np.int64), np.asarray(samples, dtype=np.int64))
    if k < 1 or (drawn < k).any():
        raise ValueError(
            f"k must be in [1, samples]; got k={k} with at least {drawn.min(initial=k)} samples a question."
        )
    if (right < 0).any() or (right > drawn).any():
        raise ValueError(
            f"correct must be in [0, samples]; got {right.min()} to {right.max()} of {drawn.max()} samples."
        )
    place = np.arange(k)
    # The i-th of k draws misses too with (n - c - i) / (n - i); fewer than k wrong samples make one factor 0.
    miss = np.prod(np.maximum(drawn[..., None] - right[..., None] - place, 0) / (drawn[..., None] - place), axis=-1)
    found: Array = 1.0 - miss
    return found


def mean_at_n(scores: Numbers) -> Array:
    """Mean score of each question [P] over its n samples [P, n]; with right / wrong scores it is pass@1."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 1:
        raise ValueError(f"scores must be [questions, samples] with at least one sample; got {list(table.shape)}.")
    mean: Array = table.mean(axis=1)
    return mean
