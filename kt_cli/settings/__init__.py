"""What may be asked for, each setting declared once. Standard library only."""

from kt_cli.settings.cluster import SlurmSpec
from kt_cli.settings.data import HOW_TO_NAME_DATA, NO_DATA, DataSpec, EvalSpec, PairsSpec
from kt_cli.settings.pretrain import PretrainSpec
from kt_cli.settings.sweep import SweepSpec
from kt_cli.settings.transfer import GUARDS, PUBLISHED, TransferSpec

__all__ = [
    "GUARDS", "HOW_TO_NAME_DATA", "NO_DATA", "PUBLISHED", "DataSpec", "EvalSpec", "PairsSpec",
    "PretrainSpec", "SlurmSpec", "SweepSpec", "TransferSpec",
]  # fmt: skip
