"""A short TRL run as a script, for one process or several: `trl_launched.py MODEL OUTPUT METHOD ROWS_PER_PROCESS`.

One update a generation, so that its rows do not depend on how processes shuffle.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

import ascent
from ascent.plugins.trl import AscentTrainer
from tests.plugins.trl_runs import Recorded, config, prompts, scores, tokenizer, weights_of

PARAMETERS = {"capo": {"objective_threshold": 1.0, "policy_threshold": 1.0}, "p3o": {"reward_scale": "running"}}


def main(model: str, output: str, slug: str, rows: int) -> None:
    settings = config(
        Path(output),
        optim="sgd",
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=2,
        num_iterations=2,
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=rows,
    )
    trainer = AscentTrainer(
        model=model,
        reward_funcs=scores,
        args=settings,
        train_dataset=prompts(),
        eval_dataset=prompts(4),
        processing_class=tokenizer(),
        rollout_func=Recorded(),
        method=ascent.method(slug, **PARAMETERS.get(slug, {})),
    )
    trainer.train()
    if trainer.accelerator.is_main_process:
        state = {f"{path}/{name}": x for path, part in trainer._state.parts.items() for name, x in part.items()}
        save_file(
            weights_of(trainer.accelerator.unwrap_model(trainer.model)) | state, Path(output) / "found.safetensors"
        )
        lines = [f"{line['loss']} {line['entropy']}" for line in trainer.state.log_history if "loss" in line]
        lines += [
            f"{line['eval_loss']} {line['eval_entropy']}" for line in trainer.state.log_history if "eval_loss" in line
        ]
        (Path(output) / "logged.txt").write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
