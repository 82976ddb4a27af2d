"""A person's own prompts: JSONL or a Hugging Face data set with a `prompt` column."""

from __future__ import annotations

import functools
import json
import random
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ascent.core.random import generator, key
from ascent.worlds.text.rewards import Rewards
from ascent.worlds.text.task import Example, Prompt, digits_changed

Row = Mapping[str, Any]


def read(path: str | Path) -> list[Row]:
    """Rows of a `.jsonl` file, a `.json` list, or a folder written by `datasets`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no rows, or a row without a usable `prompt`; its line number is named.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"data {str(path)!r} does not exist; give a .jsonl file or a data set folder.")
    rows = list(_folder(place) if place.is_dir() else _lines(place))
    if not rows:
        raise ValueError(f"data {str(path)!r} is empty; it needs at least one row with a `prompt`.")
    return rows


def _lines(place: Path) -> Iterator[Row]:
    text = place.read_text(encoding="utf-8")
    if place.suffix == ".json":
        listed = json.loads(text)
        if not isinstance(listed, list):
            raise ValueError(
                f"{place}: a .json file must hold a list of rows; got {type(listed).__name__}. Use .jsonl for lines."
            )
        for number, row in enumerate(listed, 1):
            yield _row(row, f"{place} row {number}")
        return
    # Only a newline ends a row: splitlines would also cut at separators that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place} line {number} is no JSON ({error.msg} at column {error.colno}); write one object a line."
            ) from error
        yield _row(row, f"{place} line {number}")


def _folder(place: Path) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"data folder {str(place)!r} needs the datasets package: pip install 'ascent-rl[data]'."
        ) from error
    stored = (place / "dataset_dict.json").is_file() or (place / "dataset_info.json").is_file()
    loaded = datasets.load_from_disk(str(place)) if stored else datasets.load_dataset(str(place))
    if isinstance(loaded, Mapping):
        if "train" not in loaded:
            raise ValueError(f"data folder {str(place)!r} has splits {', '.join(loaded)}; it needs one called 'train'.")
        loaded = loaded["train"]
    for number, row in enumerate(loaded, 1):
        yield _row(row, f"{place} row {number}")


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} must be an object with a `prompt`; got {type(row).__name__}.")
    if "prompt" not in row:
        raise ValueError(
            f"{where} has no `prompt`; it has {', '.join(map(str, row)) or 'no columns'}. Rename one to `prompt`."
        )
    prompt = row["prompt"]
    chat = (
        isinstance(prompt, list)
        and prompt
        and all(isinstance(item, Mapping) and {"role", "content"} <= set(item) for item in prompt)
    )
    if not chat and not (isinstance(prompt, str) and prompt):
        raise ValueError(
            f"{where}: `prompt` must be a non-empty string or a list of role/content messages; got {prompt!r}."
        )
    return row


class Data:
    """Rows as an endless stream: each epoch is a new order, hashed from (seed, epoch).

    A tenth of the distinct prompts, chosen by a hash of the prompt, is held out (none where there is only one).

    Args:
        rows: each with a `prompt`; `answer` (or `solution`) and all further columns go to the rewards.
        rewards: reward functions; None compares the completion with `answer`, letter by letter.
        seed: of the order.
        max_new_tokens: budget of a response.
        name: for messages.

    Raises:
        ValueError: no rows, or neither rewards nor answers.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        rewards: Rewards | None = None,
        seed: int = 0,
        max_new_tokens: int = 256,
        name: str = "data",
    ) -> None:
        if not rows:
            raise ValueError("rows must hold at least one row with a `prompt`; got none.")
        if rewards is None and not all(_answer(row) for row in rows):
            raise ValueError(
                "data without an `answer` in every row needs a reward function: pass --reward file.py:function."
            )
        self.name, self.seed, self.max_new_tokens, self.rewards = name, seed, max_new_tokens, rewards
        texts = sorted({_text(row) for row in rows}, key=lambda text: key("held out", text))
        held = set(texts[: max(len(texts) // 10, 1)]) if len(texts) > 1 else set()
        self.train = [row for row in rows if _text(row) not in held]
        self.held = [row for row in rows if _text(row) in held]
        self._order = functools.lru_cache(maxsize=4)(self._shuffled)

    def __repr__(self) -> str:
        """Equal for equal data, so that a cache may be named by it."""
        rows = key(json.dumps([*self.train, *self.held], sort_keys=True, default=str))
        return f"Data({self.name!r}, seed={self.seed}, rows={rows}, max_new_tokens={self.max_new_tokens})"

    @functools.cached_property
    def alphabet(self) -> str:
        """Printable characters and those of all rows."""
        found = set(string.printable)
        for row in (*self.train, *self.held):
            found |= set(_text(row)) | set(_answer(row))
        return "".join(sorted(found))

    def _shuffled(self, epoch: int) -> list[int]:
        order: list[int] = torch.randperm(len(self.train), generator=generator(self.seed, "data", epoch)).tolist()
        return order

    def _at(self, index: int) -> Row:
        epoch, place = divmod(index, len(self.train))
        return self.train[self._order(epoch)[place]]

    def example(self, index: int) -> Example:
        return _example(self._at(index))

    def held_out(self, count: int) -> list[Example]:
        """At most `count` held-out rows; fewer where the data has fewer."""
        return [_example(row) for row in self.held[:count]]

    def demonstration(self, index: int) -> str:
        """The row's `completion`, `solution` or `answer`. Raises ValueError where it has none."""
        row = self._at(index)
        text = row.get("completion") or row.get("solution") or row.get("answer")
        if not text:
            raise ValueError(f"row with prompt {_text(row)!r} has no completion, solution or answer to warm up on.")
        return str(text)

    def corrupt(self, solution: str, rng: random.Random) -> str:
        changed = digits_changed(solution, rng)
        return changed if changed != solution else "".join(rng.sample(solution, len(solution)))

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The rewards' weighted sum, or 1 where the completion equals the answer."""
        if self.rewards is not None:
            return self.rewards(prompts, completions, **columns)
        pairs = zip(completions, columns["answer"], strict=True)
        return [float(completion.strip() == str(answer).strip()) for completion, answer in pairs]


def _text(row: Row) -> str:
    return row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"], ensure_ascii=False)


def _answer(row: Row) -> str:
    found = row.get("answer", row.get("solution"))
    return "" if found is None else str(found)


def _example(row: Row) -> Example:
    return Example(
        row["prompt"], _answer(row), {name: item for name, item in row.items() if name not in ("prompt", "answer")}
    )
