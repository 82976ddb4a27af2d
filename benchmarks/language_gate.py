"""Before anything is timed: on one recorded batch, loss and every gradient of the two arms agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from language_arms import trainer_of
from language_work import Work, method_of, policy_of, reward

TOLERANCE = 1e-6


def gate(
    work: Work, tolerance: float = TOLERANCE, make: Callable[[Work], Any] = policy_of, relative: bool = False
) -> list[dict[str, Any]]:
    """Largest differences of loss, advantage and gradients on batches of ragged lengths that trl recorded.

    Args:
        work: its sizes; at most 32 tokens of 4 prompts are drawn.
        tolerance: of every difference.
        make: the policy of both arms.
        relative: compare the norm of the gradients' difference with the norm of the gradients instead (half precision).

    Raises:
        SystemExit: a difference is above `tolerance`; nothing may be timed then.
    """
    import torch

    from ascent.core.decisions import Decisions
    from ascent.core.reductions import last

    work = replace(work, ragged=True, new_tokens=min(work.new_tokens, 32), prompts=4, steps=1, warm_up=0)
    policy, method = make(work), method_of(work)
    model = policy.model
    trainer = trainer_of(work, policy)
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    rows = [item for item in list(trainer.train_dataset)[: work.prompts] for _ in range(work.group_size)]
    batch = trainer._generate_and_score_completions(rows)
    mask = batch["completion_mask"].bool()
    completions = policy.tokenizer.batch_decode(
        [ids[keep].tolist() for ids, keep in zip(batch["completion_ids"], mask, strict=True)], skip_special_tokens=True
    )
    bare = Decisions(
        mask=mask,
        action=batch["completion_ids"],
        context={"prompt": batch["prompt_ids"], "prompt_mask": batch["prompt_mask"].bool()},
        group=torch.arange(work.rows, device=mask.device) // work.group_size,
    )
    scores = torch.tensor(reward(completions), device=mask.device)[:, None]
    bare = bare.replace(reward=torch.where(last(bare, "row"), scores, 0.0))

    found = []
    drift = 0.3 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)).to(mask.device)
    for name, shift in (("on-policy", None), ("off-policy, clipping active", drift)):
        decisions = bare
        if shift is not None:
            old = policy.annotate(bare, frozenset({"old_log_prob"})).old_log_prob + shift * mask
            decisions, batch = bare.replace(old_log_prob=old), {**batch, "old_per_token_logps": old}
        model.zero_grad()
        theirs = trainer._compute_loss(model, batch)
        theirs.backward()
        expected = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
        model.zero_grad()
        decisions = method.credit(decisions)
        ours, metrics = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
        ours.backward()
        advantage = decisions.advantage[last(decisions, "row")]
        found.append(
            {
                "batch": name,
                "hidden": work.hidden,
                "vocabulary": work.vocabulary,
                "response lengths": f"{int(mask.sum(1).min())} to {int(mask.sum(1).max())}",
                "clipped": round(float(metrics["clip_fraction"]), 3),
                "advantage": float((advantage - batch["advantages"]).abs().max()),
                "loss": abs(float(ours.detach()) - float(theirs.detach())),
                "gradient": _distance(model, expected, relative),
                "largest gradient": max(float(each.abs().max()) for each in expected.values()),
            }
        )
    for row in found:
        if row["largest gradient"] < (1e-6 if relative else 100 * tolerance):
            raise SystemExit(f"the gate proves nothing: the gradient is too small, {row}.")
        for quantity in ("advantage", "loss", "gradient"):
            if not row[quantity] <= tolerance:
                raise SystemExit(f"the gate is shut: {quantity} differs by {row[quantity]:.3g}, {row}.")
    return found


def _distance(model: Any, expected: dict[str, Any], relative: bool) -> float:
    """Of the model's gradients from the expected ones: the largest entry, or the norm over the norm of those."""
    gaps = [(parameter.grad - expected[name]).double() for name, parameter in model.named_parameters()]
    if not relative:
        return max(float(gap.abs().max()) for gap in gaps)
    whole = sum(float(each.double().square().sum()) for each in expected.values())
    return (sum(float(gap.square().sum()) for gap in gaps) / whole) ** 0.5


def sizes(works: list[Work]) -> list[Work]:
    """One of each model among the workloads."""
    return list({(work.hidden, work.layers, work.vocabulary): work for work in works}.values())
