"""Text tasks: right demonstrations, wrong corruptions, disjoint held-out problems, the verifier, names."""

from __future__ import annotations

import random

import pytest

from ascent.worlds.text.countdown import solves
from ascent.worlds.text.registry import UnknownTask, names, task
from ascent.worlds.text.task import Example, TextTask

OWN = ("arithmetic", "sorting", "countdown")


def score(built: TextTask, example: Example, completion: str) -> float | None:
    columns = {name: [item] for name, item in example.columns.items()}
    return built.score([example.prompt], [completion], answer=[example.answer], **columns)[0]


@pytest.mark.parametrize("name", OWN)
def test_demonstrations_are_right_and_corruptions_wrong(name: str) -> None:
    built, rng = task(name), random.Random(0)
    for index in range(300):
        example, solution = built.example(index), built.demonstration(index)
        assert score(built, example, solution) == 1.0
        assert score(built, example, built.corrupt(solution, rng)) == 0.0
        assert score(built, example, "") == 0.0


@pytest.mark.parametrize("name", OWN)
def test_solutions_fit_the_hint_and_the_alphabet(name: str) -> None:
    built = task(name)
    lengths = []
    for index in range(300):
        solution = built.demonstration(index)
        assert set(str(built.example(index).prompt) + solution) <= set(built.alphabet)
        lengths.append(len(solution) + 1)
    assert 10 <= max(lengths) <= built.max_new_tokens <= 60


@pytest.mark.parametrize("name", OWN)
def test_held_out_problems_are_distinct_and_never_trained_on(name: str) -> None:
    built = task(name)
    held = built.held_out(60)
    prompts = {example.prompt for example in held}
    assert len(prompts) == 60
    assert not prompts & {built.example(index).prompt for index in range(3000)}
    assert [example.prompt for example in task(name).held_out(60)] == [example.prompt for example in held]


def test_both_orders_of_a_sum_are_on_one_side() -> None:
    built = task("arithmetic")
    held = {frozenset(str(example.prompt)[:-1].split("+")) for example in built.held_out(100)}
    trained = {frozenset(str(built.example(index).prompt)[:-1].split("+")) for index in range(3000)}
    assert not held & trained


@pytest.mark.parametrize("name", OWN)
def test_the_stream_is_a_function_of_seed_and_index(name: str) -> None:
    first, again, other = task(name), task(name), task(name, seed=1)
    assert [again.example(index) for index in (7, 3)] == [first.example(7), first.example(3)]
    assert [first.example(index) for index in range(20)] != [other.example(index) for index in range(20)]


def test_written_additions_by_hand() -> None:
    built = task("arithmetic", digits=3)
    example = Example("768+545=", "1313")
    assert score(built, example, "8+5=13;6+4+1=11;7+5+1=13;1313") == 1.0
    assert score(built, example, "1313") == 1.0
    assert score(built, example, "8+5=13;6+4+1=11;7+5+1=13;1312") == 0.0
    assert score(built, example, "1313;") == 0.0


@pytest.mark.parametrize(
    ("solution", "right"),
    [
        ("3*7=21;21+5=26", True),
        ("7*3=21;5+21=26", True),
        ("3*7=21;21+5=27", False),
        ("3*7=22;22+5=26", False),
        ("3*7=21", False),
        ("3*7=21;21+4=25", False),
        ("3+3=6;6*5=30", False),
        ("26", False),
        ("3*7=21;21+5=26;", False),
    ],
)
def test_countdown_steps_are_checked(solution: str, right: bool) -> None:
    assert solves([3, 5, 7], 26, solution) == right


def test_too_many_held_out_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="held-out problems of 1 digits; got 500"):
        task("arithmetic", digits=1).held_out(500)


@pytest.mark.parametrize(
    ("name", "option"), [("arithmetic", {"digits": 0}), ("sorting", {"digits": 99}), ("countdown", {"count": 1})]
)
def test_options_out_of_range_are_named(name: str, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        task(name, **option)


def test_an_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(UnknownTask, match="Did you mean 'arithmetic'"):
        task("aritmetic")
    assert set(OWN) <= set(names())


def test_reasoning_gym_by_name() -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UnknownTask, match="chain_sum"):
        task("chain_summ")
    built = task("chain_sum", seed=3)
    example = built.example(5)
    assert example == task("reasoning_gym/chain_sum", seed=3).example(5)
    assert score(built, example, built.demonstration(5)) == 1.0
    assert score(built, example, "no") == 0.0
    held = {item.prompt for item in built.held_out(20)}
    assert len(held) == 20 and not held & {built.example(index).prompt for index in range(200)}
    assert set(str(example.prompt)) <= set(built.alphabet)
    with pytest.raises(ValueError, match="refuses its settings"):
        task("chain_sum", no_such_setting=1)
