"""Ascent's methods inside verl 0.9: advantage estimators and policy losses `ascent_<slug>`.

verl loads this module by itself through the entry point `verl.plugins`; without that, name it in
`VERL_USE_EXTERNAL_MODULES` or `actor_rollout_ref.model.external_lib`. verl hides the errors of its plug-ins, so they
are printed here.
"""

from __future__ import annotations

import sys
import warnings

TESTED = (0, 9)
"""The series of verl whose functions the tests call."""


def check_version(version: str) -> None:
    """Refuse a verl older than the tested series, warn of a newer one.

    Raises:
        RuntimeError: the version is older.
    """
    found = tuple(int(number) for number in version.split(".")[:2])
    if found < TESTED:
        raise RuntimeError(f"ascent.plugins.verl needs verl 0.9 (tested with 0.9.1); found {version}. Upgrade verl.")
    if found > TESTED:
        warnings.warn(
            f"ascent.plugins.verl was tested with verl 0.9.1; found {version}. Run tests/plugins/test_verl*.py first.",
            stacklevel=2,
        )


try:
    import verl

    check_version(verl.__version__)
    from ascent.plugins.verl.functions import AscentPolicyLoss, Estimator, PolicyLoss, register

    register()
except Exception as error:
    print(
        f"\n*** Ascent is NOT registered in verl: {type(error).__name__}: {error}\n"
        "*** Every adv_estimator and loss_mode that begins with 'ascent_' will be unknown in this process.\n",
        file=sys.stderr,
        flush=True,
    )
    raise

__all__ = ["TESTED", "AscentPolicyLoss", "Estimator", "PolicyLoss", "check_version", "register"]
