"""Peak memory of the language loss: it does not grow with vocabulary x sequence.

    python benchmarks/memory.py

Every cell is a process of its own: it builds a small decoder with V words and N rows of T tokens, notes its peak
resident memory, runs `CausalPolicy.evaluate` and `backward` (or the same loss on full [N, T, V] logits), and notes
the peak again. What a vocabulary costs alone (the embedding's gradient) and what a sequence costs alone (activations)
cancels in the interaction: peak(V2, T2) - peak(V1, T2) - peak(V2, T1) + peak(V1, T1).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any

from report import Ratio, machine, write

ROWS, HIDDEN = 8, 64
VOCABULARIES = (1024, 32768)
LENGTHS = (64, 512)
MEGABYTE = 2**20


def peak() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


def measure(way: str, vocabulary: int, length: int) -> float:
    """MB that the loss and its gradient add to the peak."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ascent.core.decisions import Decisions
    from ascent.policies.causal import CausalPolicy
    from ascent.policies.embedded import character_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=length + 8,
    )
    policy = CausalPolicy(LlamaForCausalLM(config), character_tokenizer("0123456789"))

    def batch(columns: int) -> Decisions:
        prompt = torch.randint(4, vocabulary, (ROWS, 4))
        return Decisions(
            mask=torch.ones(ROWS, columns, dtype=torch.bool),
            action=torch.randint(4, vocabulary, (ROWS, columns)),
            context={"prompt": prompt, "prompt_mask": torch.ones_like(prompt, dtype=torch.bool)},
        )

    def loss(decisions: Decisions) -> torch.Tensor:
        if way == "chunked":
            now = policy.evaluate(decisions, frozenset({"log_prob", "entropy"}))
            return -(now.log_prob + 0.01 * now.entropy).mean()
        ids = torch.cat([decisions.context["prompt"], decisions.action], 1)
        log_probs = policy.model(input_ids=ids, use_cache=False).logits[:, 3:-1].log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return -(log_probs.gather(-1, decisions.action[..., None])[..., 0] + 0.01 * entropy).mean()

    # The first call loads code paths and allocates the gradients, which are the vocabulary's own cost.
    loss(batch(2)).backward()
    decisions = batch(length)
    before = peak()
    loss(decisions).backward()
    return peak() - before


def cell(way: str, vocabulary: int, length: int) -> float:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, way, str(vocabulary), str(length)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
        return
    rows: list[dict[str, Any]] = []
    for way in ("chunked", "full logits"):
        found = {(v, t): cell(way, v, t) for v in VOCABULARIES for t in LENGTHS}
        (v1, v2), (t1, t2) = VOCABULARIES, LENGTHS
        interaction = found[v2, t2] - found[v1, t2] - found[v2, t1] + found[v1, t1]
        cells = {f"V={v}, T={t} (MB)": round(found[v, t], 1) for v in VOCABULARIES for t in LENGTHS}
        rows.append({"loss": way, **cells, "interaction (MB)": round(interaction, 1)})
    once = ROWS * VOCABULARIES[1] * LENGTHS[1] * 4 / MEGABYTE
    notes = (
        f"Peak resident memory added by loss + gradient (log-prob and entropy), {ROWS} rows, hidden size {HIDDEN}, "
        f"one layer, float32. One tensor [N, T, V] of the largest cell alone is {once:.0f} MB."
    )
    largest = f"V={VOCABULARIES[1]}, T={LENGTHS[1]} (MB)"
    mine, theirs = (row[largest] for row in rows)
    work = f"peak memory of the loss, vocabulary {VOCABULARIES[1]:,}, {ROWS} x {LENGTHS[1]} tokens"
    ratio = Ratio(work, "full logits", f"{mine:,.0f} MB", f"{theirs:,.0f} MB", theirs / mine)
    write("memory", "Memory of the language loss", rows, machine("torch", "transformers"), notes, [ratio])


if __name__ == "__main__":
    main()
