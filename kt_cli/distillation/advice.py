"""What a user should know of a transfer before it begins."""

from __future__ import annotations

from kt_cli.distillation import methods
from kt_cli.distillation.order import order_of
from kt_cli.errors import warn
from kt_cli.settings import PUBLISHED, TransferSpec

FEW_UPDATES, PUBLISHED_UPDATES = 1_000, 10_000
MOSTLY = 0.9  # of the weights before are left in the slow ones: they hardly moved


def warn_if_short(spec: TransferSpec, images: int) -> None:
    """Say so where the published settings will hardly change the student.

    Args:
        spec: settled. images: number of training images.
    """
    updates = order_of(spec, images).updates
    if updates >= FEW_UPDATES:
        return
    if spec.lr is not None and spec.lr <= PUBLISHED[""]["lr"]:
        warn(
            f"{updates} updates at learning rate {spec.lr:g} will hardly move the student; "
            f"the default is made for about {PUBLISHED_UPDATES:,}. "
            "Raise --lr (say 0.01) or --epochs."
        )
    if methods.find(spec.method).slow:
        _warn_of_slow_weights(spec, updates)


def _warn_of_slow_weights(spec: TransferSpec, updates: int) -> None:
    default = TransferSpec(method=spec.method).with_defaults
    assert spec.mcl_every is not None and default.mcl_every is not None
    steps = updates // spec.mcl_every
    if not steps:
        warn(
            f"the slow weights take a step every {spec.mcl_every} updates, and there are only "
            f"{updates}: the student stays as it was. Lower --mcl-every."
        )
    elif (kept := spec.mcl_tau**steps) > MOSTLY:
        # What the published settings keep of the weights before, over as many steps as here.
        usual = default.mcl_tau ** (PUBLISHED_UPDATES // default.mcl_every)
        warn(
            f"after {updates} updates at τ = {spec.mcl_tau:g} the slow weights are still "
            f"{kept:.1%} those before; the default is made for about {PUBLISHED_UPDATES:,}. "
            f"Lower --mcl-tau (say {usual ** (1 / steps):.2g})."
        )
