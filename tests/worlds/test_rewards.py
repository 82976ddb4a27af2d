"""Reward functions of users: what is accepted, and how each mistake is reported."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ascent.worlds.text.rewards import RewardError, Rewards, load


def length(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def call(function: Any, **settings: Any) -> list[float | None]:
    return Rewards((function,), **settings)(["a", "b"], ["x", "yyy"], answer=["x", "z"])


def test_columns_reach_the_function_and_none_means_not_applicable() -> None:
    def right(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
        assert prompts == ["a", "b"]
        return [1.0 if text == goal else None for text, goal in zip(completions, answer, strict=True)]

    assert call(right) == [1.0, None]


def test_several_functions_are_weighted_and_only_those_that_apply_count() -> None:
    def first_only(completions: list[str], **columns: Any) -> list[float | None]:
        return [10.0, None]

    def never(completions: list[str], **columns: Any) -> list[None]:
        return [None, None]

    rewards = Rewards((length, first_only, never), weights=(1.0, 0.5, 3.0))
    assert rewards(["a", "b"], ["x", "yyy"]) == [6.0, 3.0]
    assert Rewards((never,))(["a", "b"], ["x", "yyy"]) == [None, None]
    assert rewards.names == ("length", "first_only", "never")


def test_async_functions_and_few_arguments() -> None:
    async def slowly(completions: list[str]) -> list[float]:
        await asyncio.sleep(0)
        return [2.0] * len(completions)

    assert call(slowly) == [2.0, 2.0]


def test_numbers_of_other_libraries_are_taken() -> None:
    assert call(lambda completions: torch.tensor([1.0, 2.0])) == [1.0, 2.0]
    assert call(lambda completions: [True, 3]) == [1.0, 3.0]


def test_chat_prompts_get_messages() -> None:
    def content(completions: list[Any], **columns: Any) -> list[float]:
        return [float(len(item[0]["content"])) for item in completions]

    prompt = [{"role": "user", "content": "hi"}]
    assert Rewards((content,))([prompt], ["four"]) == [4.0]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1.0], "returned 1 scores for 2 completions"),
        ([1.0, float("nan")], "nan for completion 1"),
        ([float("inf"), 1.0], "inf for completion 0"),
        ([1.0, "2"], "'2' for completion 1"),
        ([1.0, [1]], "completion 1"),
        (3.0, "returned float"),
        (None, "returned NoneType"),
        ("ab", "returned str"),
    ],
)
def test_wrong_returns_name_function_and_mend(returned: Any, words: str) -> None:
    def mine(**columns: Any) -> Any:
        return returned

    with pytest.raises(RewardError, match="reward 'mine'") as caught:
        call(mine)
    assert words in str(caught.value)


def test_a_function_that_raises_is_named() -> None:
    def broken(**columns: Any) -> list[float]:
        raise KeyError("gold")

    with pytest.raises(RewardError, match="reward 'broken' raised KeyError: 'gold'"):
        call(broken)


def test_a_function_that_hangs_is_stopped() -> None:
    release = threading.Event()

    def stuck(**columns: Any) -> list[float]:
        release.wait(20)
        return [0.0, 0.0]

    with pytest.raises(RewardError, match=r"reward 'stuck' took longer than timeout=0.05 s"):
        call(stuck, timeout=0.05)
    release.set()


def test_a_missing_column_is_named() -> None:
    def wants(completions: list[str], difficulty: list[int]) -> list[float]:
        return [0.0, 0.0]

    with pytest.raises(RewardError, match="asks for 'difficulty'"):
        call(wants)


@pytest.mark.parametrize("settings", [{"weights": (1.0, 2.0)}, {"timeout": 0.0}, {"weights": (float("nan"),)}])
def test_bad_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Rewards((length,), **settings)
    with pytest.raises(ValueError, match="functions"):
        Rewards(())


def test_load_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(prompts, completions, **columns):\n    return [1.0 for _ in completions]\n")
    assert call(load(f"{file}:score")) == [1.0, 1.0]
    with pytest.raises(ValueError, match="Did you mean 'score'"):
        load(f"{file}:scor")
    with pytest.raises(ValueError, match=r"file.py:function"):
        load(str(file))
    with pytest.raises(FileNotFoundError, match=r"none.py"):
        load(f"{tmp_path}/none.py:score")
    file.write_text("import no_such_module_anywhere\n")
    with pytest.raises(RewardError, match="fails on import with ModuleNotFoundError"):
        load(f"{file}:score")
