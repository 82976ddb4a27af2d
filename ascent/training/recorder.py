"""What a run leaves behind while it goes: metrics.jsonl, TensorBoard, optionally Weights & Biases."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascent.training.loop import Loop

METRICS = "metrics.jsonl"


class Recorder:
    """Writes one JSON line a step and a `held_out/` line an evaluation.

    Args:
        folder: the run folder.
        tensorboard: also write event files to `folder/tensorboard`.
        wandb_project: also log to this Weights & Biases project (extra `wandb`).
        since: steps after it are dropped from an existing file (a resumed run writes them again).
    """

    def __init__(
        self, folder: Path, *, tensorboard: bool = True, wandb_project: str | None = None, since: int = 0
    ) -> None:
        path = folder / METRICS
        kept = [line for line in read(path) if line["step"] <= since] if path.exists() else []
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a")
        self.writer: Any = None
        self.wandb: Any = None
        self.started, self.processed = time.perf_counter(), time.process_time()
        self.before = kept[-1]["seconds"] if kept else 0.0
        self.processed_before = kept[-1].get("processor_seconds", 0.0) if kept else 0.0
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(folder / "tensorboard", purge_step=since + 1 if since else None)
        if wandb_project is not None:
            import wandb

            self.wandb = wandb.init(project=wandb_project, dir=str(folder), name=folder.name, resume="allow")

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over resumptions."""
        return self.before + time.perf_counter() - self.started

    @property
    def processor_seconds(self) -> float:
        """Seconds that processors worked for this process, over resumptions: what a busy machine does not stretch."""
        return self.processed_before + time.process_time() - self.processed

    def updated(self, loop: Loop) -> None:
        """Nothing: metrics are reported by step."""

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        """Append the step's metrics."""
        self.write(loop, metrics)

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Append an evaluation under `held_out/`."""
        self.write(loop, {f"held_out/{name}": score for name, score in scores.items()})

    def write(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        """One line, flushed, so that a killed run loses nothing that was reported."""
        counts = {"step": loop.step, "updates": loop.updates, "consumed": loop.system.consumed()}
        times = {"seconds": round(self.seconds, 3), "processor_seconds": round(self.processor_seconds, 3)}
        self.file.write(json.dumps({**counts, **times, **metrics}) + "\n")
        self.file.flush()
        if self.writer is not None:
            for name, metric in metrics.items():
                self.writer.add_scalar(name, metric, loop.step)
        if self.wandb is not None:
            self.wandb.log(dict(metrics), step=loop.step)

    def close(self) -> None:
        """Flush and close every writer."""
        self.file.close()
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that a crash cut short is left out."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
