"""The laboratory's page: what every baseline estimates on three problems, by enumeration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ascent.core.method import Method
from ascent.core.registry import method
from ascent.evaluation.exact.picture import draw
from ascent.evaluation.exact.policy import TabularPolicy, tabular
from ascent.evaluation.exact.problems import bandit, decision_process, sequence
from ascent.evaluation.exact.statistics import GradientStatistics, gradient_statistics
from ascent.evaluation.exact.tree import Tree

BEGIN, END = "<!-- laboratory:begin -->", "<!-- laboratory:end -->"


@dataclass(frozen=True, eq=False)
class Problem:
    """A tree, the policy whose gradient is estimated, and the size of a batch."""

    title: str
    setting: str
    tree: Tree
    policy: TabularPolicy
    group_size: int
    groups: int


def questions() -> Problem:
    """Three questions with right and wrong answers, of success rates 0.95, 0.5 and 0.1."""
    tree = bandit([[1.0, 0.0]] * 3, name="Questions")
    rates = torch.tensor([0.95, 0.5, 0.1], dtype=torch.float64)
    policy = TabularPolicy(torch.stack([rates.logit(), torch.zeros(3, dtype=torch.float64)], dim=1))
    policy = TabularPolicy(policy.logits, tree.state_value(policy))
    setting = (
        "Three equally likely questions, one decision each, score 1 for the right answer and 0 for the wrong one; "
        "success rates 0.95, 0.5 and 0.1."
    )
    return Problem("Questions", setting, tree, policy, group_size=8, groups=2)


def tokens() -> Problem:
    """Responses of one or two tokens whose score depends on length and content."""

    def score(response: tuple[int, ...]) -> float:
        return {(0,): 0.3, (1, 0): 1.0, (2, 0): 0.0, (2, 1): 0.6}.get(response, 0.0)

    tree = sequence(score, vocabulary=3, horizon=2, name="Tokens")
    setting = (
        "One prompt, tokens 0 (end), 1 and 2, at most two of them. Scores: `0` 0.3, `1 0` 1, `2 1` 0.6 (cut by the "
        "budget), everything else 0; normal logits of deviation 1 (seed 3)."
    )
    return Problem("Tokens", setting, tree, tabular(tree, seed=3), group_size=4, groups=1)


def corridor() -> Problem:
    """Two cells and a goal: walking may fail, a time limit stops the episode."""
    stay, slip, walk = (1.0, 0.0, 0.0), (0.2, 0.8, 0.0), (0.0, 0.2, 0.8)
    transition = torch.tensor([[stay, slip], [(0.0, 1.0, 0.0), walk]], dtype=torch.float64)
    reward = torch.zeros(2, 2, 3, dtype=torch.float64)
    reward[:, 1, :] = -0.1
    reward[:, :, 2] += 1.0
    start, worth = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.2, 0.4], dtype=torch.float64)
    tree = decision_process(start, transition, reward, horizon=2, final_value=worth, name="Corridor")
    setting = (
        "Two cells and a goal; an episode starts in either. Waiting is free; walking costs 0.1 and succeeds with "
        "probability 0.8; reaching the goal earns 1 and terminates. After two decisions a time limit stops the "
        "episode, in a cell worth 0.2 or 0.4, which J includes; normal logits of deviation 1 (seed 1)."
    )
    return Problem("Corridor", setting, tree, tabular(tree, seed=1), group_size=3, groups=1)


def methods() -> Iterator[tuple[str, Method]]:
    """The baselines with their defaults, but for what would change the objective itself (see the page)."""
    yield "reinforce", method("reinforce")
    yield "reinforce (batch)", method("reinforce", baseline="batch")
    yield "rloo", method("rloo")
    yield "dr_grpo", method("dr_grpo")
    yield "grpo", method("grpo")
    yield "gspo", method("gspo")
    yield "dapo", method("dapo", overlong_buffer=0.0)
    yield "cispo", method("cispo")
    yield "reinforce_plus_plus", method("reinforce_plus_plus")
    yield "a2c", method("a2c", discount=1.0, entropy_coefficient=0.0)
    yield "ppo", method("ppo", discount=1.0)


Row = tuple[str, GradientStatistics]


def measure(problem: Problem, only: Sequence[str] = ()) -> list[Row]:
    """Every method on one problem; `only` names some of them. Raises ValueError for a name that is not in the table."""
    known = [name for name, _ in methods()]
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"only must name methods of the table ({', '.join(known)}); got {unknown[0]!r}.")
    return [
        (name, gradient_statistics(one, problem.tree, problem.policy, problem.group_size, problem.groups))
        for name, one in methods()
        if not only or name in only
    ]


def line(name: str, found: GradientStatistics) -> str:
    """One row of Markdown; variance and error in units of |grad J|^2."""
    unit = float(found.true @ found.true)

    def number(value: float) -> str:
        return "0" if abs(value) < 5e-9 else f"{value:.3f}" if value < 100 else f"{value:.0f}"

    cells = (
        number(found.relative_bias),
        f"{found.cosine:.4f}",
        number(found.scale),
        number(found.variance / unit),
        number(found.mean_squared_error / unit),
        number(found.noise),
    )
    return f"| `{name}` | " + " | ".join(cells) + " |"


def section(problem: Problem, rows: Sequence[Row]) -> str:
    """Heading, settings and table of one problem."""
    batches, gradient = rows[0][1].batches, float(rows[0][1].true.norm())
    return "\n".join(
        (
            f"### {problem.title}",
            "",
            f"{problem.setting} A batch is {problem.groups} x {problem.group_size} responses "
            f"({len(problem.tree)} trajectories, {batches} different batches, J = "
            f"{problem.tree.objective(problem.policy).item():.4f}, |∇J| = {gradient:.4f}).",
            "",
            "| method | bias | cosine | scale | variance | MSE | noise |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *(line(name, found) for name, found in rows),
        )
    )


def write(
    page: Path = Path("docs/laboratory.md"),
    picture: Path = Path("docs/images/laboratory.png"),
    only: tuple[str, ...] = (),
) -> None:
    """Measure the baselines and renew the page's tables and the picture.

    Args:
        page: Markdown file; what stands between its markers is replaced, or the tables are appended without markers.
        picture: PNG file.
        only: names of some methods of the table; empty takes all.
    """
    problems = (questions(), tokens(), corridor())
    measured = [(problem, measure(problem, only)) for problem in problems]
    tables = "\n\n".join(section(problem, rows) for problem, rows in measured)
    block = f"{BEGIN}\n\n{tables}\n\n{END}"
    text = page.read_text(encoding="utf-8") if page.exists() else "# The laboratory\n"
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    renewed = pattern.sub(lambda _: block, text) if pattern.search(text) else f"{text.rstrip()}\n\n{block}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(renewed, encoding="utf-8")
    draw([(problem.title, rows) for problem, rows in measured], picture)
