"""A person's own data: line numbers in errors, epochs, held-out rows, columns for the rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ascent.worlds.text.data import Data, read
from ascent.worlds.text.rewards import Rewards

ROWS = [{"prompt": f"say {number}", "answer": str(number), "level": number} for number in range(40)]


def written(folder: Path, text: str, name: str = "data.jsonl") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_jsonl_and_json_are_read(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS) + "\n\n"
    assert read(written(tmp_path, lines)) == ROWS
    assert read(written(tmp_path, json.dumps(ROWS), "data.json")) == ROWS


def test_a_data_set_folder_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "set"))
    assert [dict(row) for row in read(tmp_path / "set")] == ROWS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"prompt": "a"}\n{"text": "b"}\n', "line 2 has no `prompt`; it has text"),
        ('{"prompt": "a"}\n\nnot json\n', "line 3 is no JSON"),
        ('["a"]\n', "line 1 must be an object"),
        ('{"prompt": ""}\n', "line 1: `prompt` must be"),
        ('{"prompt": 3}\n', "line 1: `prompt` must be"),
        ('{"prompt": [{"role": "user"}]}\n', "line 1: `prompt` must be"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(written(tmp_path, text))
    assert words in str(caught.value)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.jsonl"):
        read(tmp_path / "none.jsonl")


def test_an_epoch_shows_every_training_row_once_in_a_new_order() -> None:
    data = Data(ROWS)
    size = len(data.train)
    epochs = [[data.example(epoch * size + place).prompt for place in range(size)] for epoch in range(2)]
    assert (
        sorted(map(str, epochs[0])) == sorted(map(str, epochs[1])) == sorted(str(row["prompt"]) for row in data.train)
    )
    assert epochs[0] != epochs[1]
    assert Data(ROWS).example(3) == data.example(3)
    assert [Data(ROWS, seed=1).example(place) for place in range(size)] != [
        data.example(place) for place in range(size)
    ]


def test_a_tenth_of_the_prompts_is_held_out() -> None:
    data = Data([*ROWS, *ROWS])
    held = {example.prompt for example in data.held_out(100)}
    assert len(held) == 4
    assert not held & {row["prompt"] for row in data.train}
    assert Data(ROWS[:1]).held_out(5) == []


def test_further_columns_travel_with_the_example() -> None:
    example = Data(ROWS[:1]).example(0)
    assert (example.prompt, example.answer, dict(example.columns)) == ("say 0", "0", {"level": 0})


def test_scores_by_answer_or_by_rewards() -> None:
    data = Data(ROWS)
    assert data.score(["say 1", "say 2"], [" 1\n", "3"], answer=["1", "2"]) == [1.0, 0.0]

    def level(completions: list[str], level: list[int], **columns: Any) -> list[float]:
        return [float(item) for item in level]

    assert Data(ROWS, Rewards((level,))).score(["say 1"], ["x"], answer=["1"], level=[7]) == [7.0]


def test_data_without_answers_needs_a_reward() -> None:
    with pytest.raises(ValueError, match="needs a reward function"):
        Data([{"prompt": "a"}])
    with pytest.raises(ValueError, match="at least one row"):
        Data([])


def test_a_line_separator_inside_a_string_does_not_end_a_row(tmp_path: Path) -> None:
    assert read(written(tmp_path, '{"prompt": "a\u2028b"}\n')) == [{"prompt": "a\u2028b"}]


def test_equal_data_prints_equal() -> None:
    assert repr(Data(ROWS)) == repr(Data([*ROWS])) != repr(Data(ROWS[1:]))
