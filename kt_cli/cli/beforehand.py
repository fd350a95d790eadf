"""What `kt transfer` refuses or warns of before any work."""

from __future__ import annotations

from pathlib import Path

from kt_cli.cli import screen
from kt_cli.errors import UsageError
from kt_cli.spec import PUBLISHED, TransferSpec

FEW_UPDATES, PUBLISHED_UPDATES = 1_000, 10_000
MOSTLY = 0.9  # of the weights before are left in the slow ones: they hardly moved


def require_sense(
    guard: bool, guard_data: Path | None, force_guard: bool, repo: str | None, private: bool
) -> None:
    """Refuse options that would change nothing: whoever gives them wants something else.

    Raises:
        UsageError: there is one.
    """
    if not guard and (guard_data is not None or force_guard):
        option = "--force-guard" if force_guard else "--guard-data"
        raise UsageError(f"{option} changes nothing without --guard", "Add --guard.")
    if private and repo is None:
        raise UsageError("--private changes nothing without --push-to-hub", "Name a repository.")


def require_writable(target: Path) -> None:
    """Refuse a place where nothing can be saved once the work is done.

    Args:
        target: an absolute path; what of it does not exist will be made.

    Raises:
        WriteError: nothing can be written there.
    """
    from tempfile import TemporaryFile

    from kt_cli.files import write_error

    there = next(folder for folder in target.parents if folder.exists())
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise write_error(target, error) from error


def warn_if_short(spec: TransferSpec, images: int) -> None:
    """Say so where the published settings will hardly change the student.

    Args:
        spec: settled. images: number of training images.
    """
    from kt_cli.transfer import methods
    from kt_cli.transfer.distil import order_of

    updates = order_of(spec, images).updates
    if updates >= FEW_UPDATES:
        return
    if spec.lr is not None and spec.lr <= PUBLISHED[""]["lr"]:
        screen.warn(
            f"{updates} updates at learning rate {spec.lr:g} will hardly move the student; "
            f"the default is made for about {PUBLISHED_UPDATES:,}. "
            "Raise --lr (say 0.01) or --epochs."
        )
    if methods.find(spec.method).slow:
        _warn_of_slow_weights(spec, updates)


def _warn_of_slow_weights(spec: TransferSpec, updates: int) -> None:
    assert spec.mcl_every is not None
    steps = updates // spec.mcl_every
    if not steps:
        screen.warn(
            f"the slow weights take a step every {spec.mcl_every} updates, and there are only "
            f"{updates}: the student stays as it was. Lower --mcl-every."
        )
    elif (kept := spec.mcl_tau**steps) > MOSTLY:
        default = TransferSpec(method=spec.method).settled
        assert default.mcl_every is not None
        # What the published settings keep of the weights before, over as many steps as here.
        usual = default.mcl_tau ** (PUBLISHED_UPDATES // default.mcl_every)
        screen.warn(
            f"after {updates} updates at τ = {spec.mcl_tau:g} the slow weights are still "
            f"{kept:.1%} those before; the default is made for about {PUBLISHED_UPDATES:,}. "
            f"Lower --mcl-tau (say {usual ** (1 / steps):.2g})."
        )
