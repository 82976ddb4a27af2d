"""BAPO inside TRL, with two reward functions of your own and TRL's own configuration.

    pip install 'ascent-rl[trl]'
    python examples/trl_custom_reward.py --model <folder or hub id>
    accelerate launch --config_file examples/launch/multi_gpu.yaml examples/trl_custom_reward.py --model <...>

`ascent train --method grpo --task arithmetic` leaves a folder that works on a CPU, runs/grpo-arithmetic-seed0/policy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from datasets import load_dataset
from trl import GRPOConfig

import ascent
from ascent.plugins.trl import AscentTrainer, plan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "custom_reward"))
from my_rewards import brief, correct  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder or hub id of a causal language model")
    parser.add_argument("--output", default="runs/trl-bapo")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="1e-6 for a model of billions")
    given = parser.parse_args()

    method = ascent.method("bapo", positive_share=0.45)  # method="bapo" takes the paper's defaults
    trainer = AscentTrainer(
        method=method,
        model=given.model,
        reward_funcs=[correct, brief],
        args=GRPOConfig(
            output_dir=given.output,
            reward_weights=[1.0, 0.2],
            num_generations=8,
            per_device_train_batch_size=16,
            max_completion_length=26,
            learning_rate=given.learning_rate,
            max_steps=given.steps,
            logging_steps=1,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            report_to="none",
            **plan(method),  # passes over a generation and updates a pass, as the paper has them
        ),
        train_dataset=load_dataset("json", data_files=str(HERE / "custom_reward" / "prompts.jsonl"), split="train"),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
