"""Scored responses from a file, as decisions."""

from __future__ import annotations

import json

import pytest

from ascent.policies.embedded import embedded
from ascent.sampling.recorded import recorded
from ascent.worlds.text.scored import Scored, read_scored


@pytest.fixture(scope="module")
def policy():
    return embedded("0123456789+= ", 0, context=24)


def rows(tmp_path, *lines):
    path = tmp_path / "scored.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_file_of_groups(tmp_path, policy):
    path = rows(
        tmp_path,
        {"prompt": "1+1=", "completions": ["2", "11"], "scores": [1, -0.5]},
        {"prompt": "2+2+2=", "completions": ["6", "", "66"], "scores": [1.0, 0.0, 0.25], "ended": [True, True, False]},
    )
    found = recorded(read_scored(path), policy)
    assert found.group.tolist() == [0, 0, 1, 1, 1]
    assert found.mask.sum(1).tolist() == [2, 3, 2, 1, 2]  # an end of text each, but for the response cut off
    assert found.reward.sum(1).tolist() == [1.0, -0.5, 1.0, 0.0, 0.25]
    last = found.terminated | found.truncated
    assert bool((last.sum(1) == 1).all())
    assert found.truncated.any(1).tolist() == [False, False, False, False, True]
    assert found.action[last][:4].tolist() == [policy.eos[0]] * 4
    assert policy.tokenizer.decode(found.action[4][found.mask[4]]) == "66"
    prompts = found.context["prompt"][found.context_row]
    real = found.context["prompt_mask"][found.context_row]
    assert policy.tokenizer.decode(prompts[1][real[1]]) == "1+1="


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1", "completions": ["2"], "scores": [1]}, "at least 2 responses"),
        ({"prompt": "1", "completions": ["2", "3"], "scores": [1]}, "one entry per completion, 2; got 1"),
        ({"prompt": "1", "completions": ["2", "3"], "scores": [1, "a"]}, "finite numbers; got 'a'"),
        ({"prompt": "1", "completions": "23", "scores": [1, 2]}, "completions must be a list"),
        ({"prompt": "1", "completions": ["2", "3"]}, "scores must be a list; got None"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    good = {"prompt": "1", "completions": ["2", "3"], "scores": [1, 2]}
    with pytest.raises(ValueError, match="row 2") as raised:
        read_scored(rows(tmp_path, good, row))
    assert message in str(raised.value)


def test_what_does_not_fit_is_named(policy):
    with pytest.raises(ValueError, match=r"row 0 has 4 \+ 31 tokens"):
        recorded([Scored("1+1=", ("2" * 30, "2"), (0.0, 1.0), (True, True))], policy)
    with pytest.raises(ValueError, match="decides nothing"):
        recorded([Scored("1+1=", ("", "2"), (0.0, 1.0), (False, True))], policy)
