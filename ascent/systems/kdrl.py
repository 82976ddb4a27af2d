"""KDRL as an assembly: a frozen teacher beside the student, who scores the student's own tokens.

The teacher is an embedded model that is trained here on right solutions only (and cached), a folder or a hub id. It
must have the student's tokenizer: a token of one must be the same token of the other.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from rich.console import Console
from torch import Tensor
from transformers import AutoConfig

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.random import key
from ascent.policies.causal import CausalPolicy
from ascent.policies.compiled import cache_folder
from ascent.policies.embedded import embedded
from ascent.policies.with_logits import WithLogits
from ascent.systems import language
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.systems.warm_up import supervised
from ascent.training.annotate import Scorer, log_prob_of
from ascent.training.processes import Processes
from ascent.worlds.text.task import TextTask

RECIPE = 1  # raised when teachers of an older recipe must not be reused
TAUGHT = frozenset({"teacher_log_prob", "teacher_distribution"})


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The language assembly with a teacher among its scorers."""
    refuse(config, method)

    def assist(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Assistance:
        if not TAUGHT & method.needs:
            return policy, {}
        teacher = load_teacher(config, method, task, policy, processes)
        return WithLogits(policy), scorers(teacher)

    return language.build(config, method, processes, assist=assist)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where there is no language model or no teacher, or the world does not feed the method."""
    if not isinstance(config, LanguageConfig):
        raise BadConfig("kdrl distils a language model; give --task or --data instead of --env.")
    if method.parameters.get("teacher", "embedded") == "embedded" and config.data is not None:
        raise BadConfig("teacher='embedded' is trained on a built-in task; with --data give --set teacher=FOLDER.")
    refuse_unfed(config, method)
    if TAUGHT & method.needs:
        refuse_absent(str(method.parameters.get("teacher", "embedded")))


def refuse_absent(name: str) -> None:
    """Raise BadConfig where there is no such teacher, before the student is warmed up; a hub id costs a few files."""
    if name == "embedded":
        return
    folder = Path(name)
    try:
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise FileNotFoundError("the folder holds no config.json; a run's trained policy is in RUN/policy")
        if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
            raise FileNotFoundError("the folder does not exist; give one that does, or a hub id 'owner/name'")
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise BadConfig(f"teacher {name!r} cannot be loaded: {error}") from error


def scorers(teacher: CausalPolicy) -> dict[str, Scorer]:
    """The teacher's log-probs of the tokens that were taken, and of every token."""
    whole = WithLogits(teacher.requires_grad_(False))

    def distribution(decisions: Decisions) -> Tensor:
        return whole.evaluate(decisions, frozenset({"outputs"})).outputs.log_softmax(-1)

    return {"teacher_log_prob": log_prob_of(teacher), "teacher_distribution": distribution}


def load_teacher(
    config: LanguageConfig, method: Method, task: TextTask, policy: CausalPolicy, processes: Processes
) -> CausalPolicy:
    """The teacher that the method names, at the run's temperature."""
    name = str(method.parameters["teacher"])
    if name == "embedded":
        console = Console(quiet=config.quiet or not processes.main)
        sizes = {key: int(method.parameters[f"teacher_{key}"]) for key in ("steps", "hidden")}
        corrupted = float(method.parameters["teacher_corrupted"])
        teacher = trained(task, policy, corrupted=corrupted, console=console, processes=processes, **sizes)
    else:
        try:
            teacher = CausalPolicy.load(name)
        except OSError as error:
            raise BadConfig(f"teacher {name!r} cannot be loaded: {error}") from error
    teacher.temperature = policy.temperature
    refuse_other_tokens(policy, teacher)
    return teacher.to(processes.device)


def refuse_other_tokens(policy: CausalPolicy, teacher: CausalPolicy) -> None:
    """Raise BadConfig where a token id of the student is another token, or no end, for the teacher."""
    ours, theirs = policy.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        other = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        raise BadConfig(
            f"teacher and student must have the same tokenizer; {len(other)} tokens differ, for example {other[0]!r} "
            f"(student {ours.get(other[0])}, teacher {theirs.get(other[0])}). Choose a teacher of the same family."
        )
    if set(policy.eos) != set(teacher.eos):
        raise BadConfig(
            f"teacher and student must end their text alike; the student's ends are {policy.eos}, the teacher's "
            f"{teacher.eos}. Set generation_config.eos_token_id of one of them."
        )


def trained(
    task: TextTask, student: CausalPolicy, steps: int, hidden: int, corrupted: float, console: Console,
    processes: Processes,
) -> CausalPolicy:  # fmt: skip
    """The embedded teacher: `steps` supervised updates of a model of width `hidden`; from the cache where it is."""
    words = (RECIPE, task.name, repr(task), steps, hidden, str(corrupted), str(student.context_length))
    folder = cache_folder() / f"teacher-{task.name.replace('/', '-')}-{key(*words) & 0xFFFF_FFFF_FFFF:012x}"
    if not folder.exists() and processes.main:
        context = student.context_length
        assert context is not None, "the embedded student has a limited context"
        teacher = embedded(task.alphabet, seed=1, hidden=hidden, context=context)
        refuse_other_tokens(student, teacher)
        console.print(
            f"kdrl needs a teacher: {steps} supervised updates of one of width {hidden}, once; it is kept in {folder}.",
            highlight=False,
            soft_wrap=True,
        )
        supervised(teacher, task, steps, 1, console, corrupted, title=f"teacher of {task.name}")
        aside = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
        teacher.save(aside)
        (aside / "teacher.json").write_text(json.dumps({"recipe": [str(word) for word in words]}))
        try:
            aside.rename(folder)
        except OSError:  # another run finished the same teacher first
            shutil.rmtree(aside)
    processes.wait()
    return CausalPolicy.load(folder)
