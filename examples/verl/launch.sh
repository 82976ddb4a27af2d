#!/usr/bin/env bash
# Trains with a method of Ascent in verl 0.9 on the GPUs of one node, or of a Ray cluster that is already running.
#
#   METHOD=grpo MODEL=Qwen/Qwen2.5-1.5B-Instruct TRAIN=train.parquet TEST=test.parquet examples/verl/launch.sh
#   METHOD=dapo PARAMETERS="clip_high=0.3" NODES=2 examples/verl/launch.sh trainer.total_epochs=3
#
# Every node needs the same environment: pip install ascent-rl "verl[vllm]==0.9.1". Nothing starts where the
# configuration contradicts the method.
set -euo pipefail

METHOD=${METHOD:-grpo}
PARAMETERS=${PARAMETERS:-}
MODEL=${MODEL:?a Hugging Face model: MODEL=Qwen/Qwen2.5-1.5B-Instruct}
TRAIN=${TRAIN:?training prompts as verl reads them, a parquet file: TRAIN=train.parquet}
TEST=${TEST:-$TRAIN}
NODES=${NODES:-1}
GPUS=${GPUS:-8}
PYTHON=${PYTHON:-python3}

# shellcheck disable=SC2086  # several parameters are several words
METHOD_OVERRIDES=$("$PYTHON" -m ascent.plugins.verl overrides "$METHOD" $PARAMETERS)
mapfile -t ARGUMENTS <<<"$METHOD_OVERRIDES"
ARGUMENTS+=(
    data.train_files="$TRAIN"
    data.val_files="$TEST"
    data.train_batch_size=256
    data.max_prompt_length=512
    data.max_response_length=1024
    actor_rollout_ref.model.path="$MODEL"
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.ppo_mini_batch_size=64
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16
    trainer.n_gpus_per_node="$GPUS"
    trainer.nnodes="$NODES"
    trainer.project_name=ascent
    trainer.experiment_name="$METHOD"
    trainer.logger='[console]'
    "$@"
)

"$PYTHON" -m ascent.plugins.verl check "${ARGUMENTS[@]}"
if [[ ${DRY_RUN:-} ]]; then
    printf '%s\n' "${ARGUMENTS[@]}"
    exit 0
fi
exec "$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}"
