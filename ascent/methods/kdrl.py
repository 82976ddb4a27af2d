"""KDRL: reinforcement learning and on-policy distillation in one loss, on the student's own samples.

    R_t = log pi_T(o_t) - log pi(o_t)                                   how much likelier the teacher finds the token
    J_GRPO = 1/sum|o_i| sum_i sum_t rho_it A_i,    rho = pi / pi_old, A the group-normalised score
    loss = -J_GRPO + beta_k mean_t 1/2 R_t^2                        k2, gradient through log pi only     (eq. 8)

In expectation over the student's samples the gradient of k2 is that of the reverse KL(pi, pi_T); as a loss k1 = -R has
gradient zero (only noise), and k3 = exp(R) - R - 1 has that of the forward KL(pi_T, pi): `divergences` has the table,
the tests enumerate it. At ratio 1 the same gradient comes from the token advantage A_i + beta R_t.

    beta_k = max(beta_0 - fall * step, least): early imitation, later exploration ("anneal"); or constant
    mask the second term: only wrong responses ("response"), or only groups without a right one ("group")

Xu et al. 2025, arXiv 2506.02208 (not read itself: its equations as quoted by summaries and by AReaL). One normaliser
for both terms, all tokens of the update. No reference KL and the division by the group's deviation are not verified.
Departure from AReaL's joint branch, which adds k1 as a differentiable loss: noise of mean zero instead of distillation.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.centre import Centre
from ascent.core.divergences import Divergence, WholeDivergence
from ascent.core.method import Method
from ascent.core.plan import Adam, Falling, Number, Plan, Switch
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.returns import Score
from ascent.core.selectors import Failed
from ascent.core.shaping import Penalised
from ascent.core.surrogates import Ratio
from ascent.core.term import Selector, Term

ESTIMATORS = ("k2", "k1", "k3", "exact", "top_k")
TOP = 8
"""Actions that the estimator "top_k" sums over."""


@register(
    "kdrl",
    title="KDRL: post-training reasoning LLMs via unified knowledge distillation and reinforcement learning",
    paper="Xu et al., preprint",
    year=2025,
    url="https://arxiv.org/abs/2506.02208",
    family="language",
)
def kdrl(
    objective: Literal["joint", "rl", "kd", "sequential"] = "joint",
    schedule: Literal["anneal", "constant"] = "anneal",
    kd_coefficient: float = 5e-3,
    kd_fall: float = 5e-5,
    kd_least: float = 1e-3,
    estimator: Literal["k2", "k1", "k3", "exact", "top_k"] = "k2",
    mask: Literal["none", "response", "group"] = "none",
    mask_norm: Literal["kept", "all"] = "kept",
    success: float = 1.0,
    switch: float = 0.5,
    reward_shaping: float = 0.0,
    ratio_limit: float | None = None,
    teacher: str = "embedded",
    teacher_steps: int = 300,
    teacher_corrupted: float = 0.0,
    teacher_hidden: int = 128,
    ddof: int = 1,
    eps: float = 1e-6,
    learning_rate: float = 1e-4,
) -> Method:
    """Knowledge distillation and reinforcement learning, joint or one after the other.

    Args:
        objective: "joint", "rl" (GRPO alone), "kd" (distillation alone, coefficient 1), "sequential" (kd, then rl).
        schedule: of the coefficient in "joint": "anneal" falls with every update, "constant" stays.
        kd_coefficient: beta, or where its fall begins, >= 0; 0 is GRPO.
        kd_fall: taken from beta at every update, >= 0.
        kd_least: where the fall ends, in [0, kd_coefficient].
        estimator: of the divergence to the teacher; "k2" is the paper's, "k1" and "k3" show why, "exact" and "top_k"
            sum over the vocabulary (small ones only).
        mask: whose tokens are distilled: all, "response" only wrong responses, "group" only groups that failed.
        mask_norm: the mean is over the distilled tokens ("kept") or over all tokens ("all").
        success: a response whose rewards add up to at least this is right; finite.
        switch: share of a sequential run that is distillation, in (0, 1).
        reward_shaping: weight of the teacher's log-ratio inside the reward, >= 0: another algorithm, for comparison.
        ratio_limit: log-ratios are limited to so many nats, > 0; None does not limit.
        teacher: "embedded" (trained here on right solutions, once), a folder or a hub id, with the student's tokenizer.
        teacher_steps: supervised updates of the embedded teacher, >= 1.
        teacher_corrupted: share of wrong solutions that the embedded teacher sees, in [0, 1]: a poor teacher.
        teacher_hidden: width of the embedded teacher, a multiple of 8; the embedded student's is 128.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model.
    """
    one_of("objective", objective, ("joint", "rl", "kd", "sequential"))
    one_of("schedule", schedule, ("anneal", "constant"))
    within("kd_coefficient", kd_coefficient, "[0, inf)", "Use 5e-3; 0 is GRPO")
    within("kd_fall", kd_fall, "[0, inf)", "Use 5e-5")
    within("kd_least", kd_least, "[0, inf)", "Use 1e-3")
    if schedule == "anneal" and kd_least > kd_coefficient > 0:
        raise ValueError(
            f"kd_least must be <= kd_coefficient={kd_coefficient!r}; got {kd_least!r}. Use 0 for no floor."
        )
    one_of("estimator", estimator, ESTIMATORS)
    one_of("mask", mask, ("none", "response", "group"))
    one_of("mask_norm", mask_norm, ("kept", "all"))
    within("success", success, "(-inf, inf)", "Use 1, the reward of a right response")
    within("switch", switch, "(0, 1)", "Use 0.5, half of the run each")
    within("reward_shaping", reward_shaping, "[0, inf)", "Use 0 for the paper's loss")
    if ratio_limit is not None:
        within("ratio_limit", ratio_limit, "(0, inf)", "Use 20, or None for no limit")
    if not isinstance(teacher, str) or not teacher:
        raise ValueError(f"teacher must be 'embedded', a folder or a hub id; got {teacher!r}. Name who teaches.")
    whole("teacher_steps", teacher_steps, 1, "Use 300")
    within("teacher_corrupted", teacher_corrupted, "[0, 1]", "Use 0 for a good teacher")
    whole("teacher_hidden", teacher_hidden, 8, "Use 128")
    if teacher_hidden % 8:
        raise ValueError(f"teacher_hidden must be a multiple of 8; got {teacher_hidden}. Use 128.")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    score = Score(Penalised(reward_shaping, against="teacher")) if reward_shaping else Score()
    beta: Number = Falling(kd_coefficient, kd_fall, kd_least) if schedule == "anneal" else kd_coefficient
    weights: dict[str, tuple[Number, Number]] = {
        "joint": (1.0, beta if kd_coefficient else 0.0),
        "rl": (1.0, 0.0),
        "kd": (0.0, 1.0),
        "sequential": (Switch(0.0, 1.0, switch), Switch(1.0, 0.0, switch)),
    }
    of_reward, of_teacher = weights[objective]
    divergence: Divergence | WholeDivergence
    if estimator == "exact" or estimator == "top_k":
        divergence = WholeDivergence("teacher", TOP if estimator == "top_k" else None)
    else:
        divergence = Divergence(estimator, "teacher", ratio_limit)
    keep: dict[str, Selector | None] = {
        "none": None,
        "response": Failed("row", success),
        "group": Failed("group", success),
    }
    losses = {}
    if of_reward != 0.0:
        losses["policy"] = Term(Ratio(), of_reward)
    if of_teacher != 0.0:
        losses["teacher"] = Term(
            divergence, of_teacher, keep=keep[mask], count="kept" if mask_norm == "kept" else "all"
        )
    return Method(
        slug="kdrl",
        advantage=Centre(of=score, by="group", scale="group", ddof=ddof, eps=eps),
        losses=losses,
        plan=Plan(),
        step=Adam(learning_rate=learning_rate),
    )
