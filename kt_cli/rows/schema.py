"""The tables of a sweep: every column with its type and meaning. Standard library only.

results/README.md shows the same; a test holds them together.
"""

from __future__ import annotations

from typing import NamedTuple

from kt_cli.settings import PretrainSpec, TransferSpec
from kt_cli.settings.declared import declared

TOP_PERCENTS = (2, 5, 20, 50)


class Column(NamedTuple):
    type: str  # one of kt_cli.rows.parts.TYPES
    meaning: str


S, N, F, B = "string", "int64", "double", "bool"
TYPES = {str: S, int: N, float: F, bool: B}


def settings_of(kind: type) -> dict[str, Column]:
    """The columns of settings, from their declarations."""
    return {
        name: Column(TYPES[one.types[0]], one.said.column or one.said.help.rstrip("."))
        for name, one in declared(kind).items()
        if one.said.column is not None
    }


DATA: dict[str, Column] = {
    "data": Column(S, "data source as named by the user"),
    "eval_data": Column(S, "fingerprint of the evaluation images"),
    "eval_size": Column(S, "`test`: models see their test input size, as in timm's validate.py; or "
        "`train`"),
    "eval_amp": Column(S, "mixed precision of the evaluation: `float16` or `bfloat16`; empty for "
        "full precision"),
    "limit": Column(N, "`--limit` on the evaluation images; null for all"),
    "n": Column(N, "evaluation images"),
    "skipped": Column(N, "evaluation images that `--skip-broken` left out; null without it"),
    "num_classes": Column(N, "classes C"),
}  # fmt: skip
PROVENANCE: dict[str, Column] = {
    "kt_version": Column(S, "version of kt"),
    "torch_version": Column(S, "version of torch"),
    "timm_version": Column(S, "version of timm"),
    "git_commit": Column(S, "commit of kt's checkout; null when installed from a package"),
    "device": Column(S, "device name"),
    "threads": Column(N, "CPU threads used by torch"),
    "host": Column(S, "host name"),
    "job_id": Column(S, "job of the cluster that ran it; null where there is none"),
    "created": Column(S, "when the row was written, UTC, ISO 8601"),
    "seconds": Column(F, "seconds of the run and of what was interrupted; models predicted "
        "together share theirs"),
    "samples_per_s": Column(F, "images processed per second of the run"),
    "peak_memory_mb": Column(F, "peak memory in MB: of the device on CUDA, else of the process"),
}  # fmt: skip
OUTCOME: dict[str, Column] = {
    "status": Column(S, "`ok` or `failed`"),
    "error": Column(S, "what went wrong; null when ok"),
    "attempt": Column(N, "which try this was, from 1"),
}  # fmt: skip

TABLES: dict[str, dict[str, Column]] = {
    "pretrain": {
        "run_id": Column(S, "identity of the run"),
        "model": Column(S, "name of the trained model"),
        **settings_of(PretrainSpec),
        "data": Column(S, "data source as named by the user"),
        "train_data": Column(S, "fingerprint of the training images"),
        "n_train": Column(N, "training images"),
        "skipped_train": Column(N, "such images that `--skip-broken` left out"),
        "fraction": Column(F, "share of the training images used"),
        "guard_share": Column(F, "share of the training images set aside"),
        "num_classes": Column(N, "classes C"),
        "final_loss": Column(F, "mean training loss of the last epoch"),
        "curve_loss": Column("list<double>", "mean training loss of each epoch"),
        "curve_acc": Column("list<double>", "top-1 on the views that were trained on, for each "
            "epoch, percent"),
        "waiting_share": Column(F, "time spent waiting for pixels of views, percent of the "
            "training's"),
        "accuracy": Column(F, "top-1 of the trained model in percent; null without evaluation "
            "images"),
        "eval_data": Column(S, "fingerprint of the evaluation images"),
        "n": Column(N, "evaluation images"),
        "path": Column(S, "folder of the trained model, relative to the sweep's"),
        **PROVENANCE,
        **OUTCOME,
    },
    "models": {
        "run_id": Column(S, "identity of the run"),
        "model": Column(S, "model name"),
        "model_key": Column(S, "identity of the model: name with tag, or hash of its weights"),
        **DATA,
        "accuracy": Column(F, "top-1 accuracy in percent"),
        "accuracy_low": Column(F, "lower end of its 95% interval (Wilson), percent"),
        "accuracy_high": Column(F, "upper end of its 95% interval (Wilson), percent"),
        "top5": Column(F, "top-5 accuracy in percent; null below five classes"),
        "params_m": Column(F, "parameters in millions"),
        "input_size": Column(N, "side length of the input in pixels"),
        "weights": Column(S, "hash of the weights as loaded"),
        "class_matching": Column(S, "how outputs were matched to the classes: by the model's "
            "`names`, `synsets`, `valid-labels`, `by-position` as asked, or `position` without "
            "names"),
        "preprocessing": Column(S, "JSON: the data configuration as resolved, and the version of "
            "timm"),
        "outputs": Column(S, "hash of which outputs the classes are, in their order; empty for all "
            "as they come"),
        "batch_size": Column(N, "images per forward pass"),
        "warning": Column(S, "what looks wrong: an accuracy near chance, or classes in another "
            "order; null where nothing does"),
        "measured_with": Column(S, "models that were evaluated in one pass, whose time they share, "
            "have the same: the run of the first; null of what was known already"),
        **PROVENANCE,
        **OUTCOME,
    },
    "complementarity": {
        "run_id": Column(S, "identity of the ordered pair on this data"),
        "teacher": Column(S, "teacher's name"),
        "student": Column(S, "student's name"),
        "teacher_key": Column(S, "identity of the teacher"),
        "student_key": Column(S, "identity of the student"),
        **DATA,
        "teacher_acc": Column(F, "teacher's top-1 in percent"),
        "student_acc": Column(F, "student's top-1 in percent"),
        "acc_diff": Column(F, "teacher_acc − student_acc, percentage points"),
        "pos_flips": Column(F, "ρ⁺: teacher right and student wrong, percent of images"),
        "neg_flips": Column(F, "ρ⁻: student right and teacher wrong, percent of images"),
        "agreement": Column(F, "equal predictions, percent"),
        "kappa": Column(F, "error consistency: Cohen's κ on correctness; null where undefined"),
        "oracle_acc": Column(F, "either is right, percent"),
        "confident_acc": Column(F, "accuracy of the more confident of the two, percent; null where "
            "one is unknown"),
        "mcnemar_p": Column(F, "McNemar's exact test, two-sided p-value"),
        "flip_entropy": Column(F, "entropy of the positive flips over classes, nats; null without "
            "flips"),
        **{
            f"top{p}_classes": Column(N, f"fewest classes that hold {p}% of the positive flips")
            for p in TOP_PERCENTS
        },
        "class_embedding": Column(S, "what classes are compared by: `head:MODEL` or `clip:MODEL`; "
            "null without any"),
        "class_similarity": Column(F, "mean cosine of all pairs of classes"),
        **{name: column for p in TOP_PERCENTS for name, column in {
            f"top{p}_similarity": Column(F, f"mean cosine of the top-{p}% classes; null for one "
                "class alone"),
            f"top{p}_similarity_pct": Column(F, "its percentile among random sets of as many "
                "classes"),
        }.items()},
        "measured_with": Column(S, "run that measured this pair: the same of all its pairs"),
        "by_class": Column(B, "whether flips_by_class was asked for"),
        "flips_by_class": Column("list<int32>", "positive flips of each class, in label order; "
            "null unless asked for"),
        **PROVENANCE,
        **OUTCOME,
    },
    "transfer": {
        "run_id": Column(S, "identity of the run"),
        "teacher": Column(S, "teacher's name; of several all, to be read: see teacher_names"),
        "student": Column(S, "student's name"),
        "teacher_key": Column(S, "identity of the teacher, or of several together"),
        "student_key": Column(S, "identity of the student"),
        "teacher_matching": Column(S, "how the teacher's outputs were matched to the classes, as "
            "`class_matching`"),
        "student_matching": Column(S, "how the student's were"),
        **settings_of(TransferSpec),
        "micro_batch_asked": Column(N, "samples per forward pass as asked for; more where memory "
            "was exhausted"),
        **DATA,
        "train_data": Column(S, "fingerprint of the transfer images"),
        "n_train": Column(N, "transfer images"),
        "skipped_train": Column(N, "such images that `--skip-broken` left out"),
        "fraction": Column(F, "share of the training images used"),
        "subset_seed": Column(N, "seed that drew them"),
        "guard_share": Column(F, "share of the training images set aside"),
        "settings": Column(S, "hash of all settings but method and seed, as they were in the end; "
            "equal ones compare"),
        "teacher_acc": Column(F, "teacher's top-1 in percent; of several: any of them is right"),
        "student_acc": Column(F, "student's top-1 before transfer, percent"),
        "after_acc": Column(F, "student's top-1 after transfer, percent"),
        "acc_diff": Column(F, "teacher_acc − student_acc, percentage points"),
        "delta": Column(F, "transfer delta Δ: after_acc − student_acc, percentage points"),
        "gain": Column(F, "wrong before and right after, percent of images"),
        "loss": Column(F, "right before and wrong after, percent of images; delta = gain − loss"),
        "transfer_p": Column(F, "McNemar's exact test of gain against loss, two-sided p-value"),
        "pos_flips": Column(F, "ρ⁺ of teacher over student before transfer, percent"),
        "neg_flips": Column(F, "ρ⁻ before transfer, percent"),
        "pos_flips_after": Column(F, "ρ⁺ of teacher over student after transfer, percent"),
        "neg_flips_after": Column(F, "ρ⁻ after transfer, percent"),
        "transfer_rate": Column(F, "share of ρ⁺ that the student learned, percent; null without "
            "ρ⁺"),
        **{
            f"top{p}_rate": Column(F, f"the same within the top-{p}% classes of ρ⁺")
            for p in TOP_PERCENTS
        },
        **{
            f"top{p}_gain_share": Column(F, f"share of the gain in the top-{p}% classes, percent")
            for p in TOP_PERCENTS
        },
        "gain_entropy": Column(F, "entropy of the gain over classes, nats; null without gain"),
        "gain_by_class": Column("list<int32>", "images gained of each class, in label order; null "
            "unless asked for"),
        "loss_by_class": Column("list<int32>", "images lost of each class, likewise"),
        "teacher_names": Column("list<string>", "several teachers as named; null of a single one"),
        "teacher_keys": Column("list<string>", "their identities, in the same order"),
        "teacher_accs": Column("list<double>", "top-1 of each teacher as named, percent"),
        "teacher_rates": Column("list<double>", "transfer rate of each teacher, percent"),
        "teacher_shares": Column("list<double>", "samples that each teacher taught, percent"),
        "step_accs": Column("list<double>", "student's top-1 after each turn: after each teacher "
            "so far (`sequential`), or each part (`soup`)"),
        "share_taught": Column(F, "training samples taught by a teacher, percent"),
        "delta_statistics": Column(F, "Δ from the running statistics alone, on the weights before; "
            "null without any"),
        "delta_control": Column(F, "Δ of the student with nothing learned, its running statistics "
            "estimated anew; null without any, and with `bn` eval"),
        "worse": Column(S, "what was lost beyond `fail_if_worse` and `fail_if_class_worse`; "
            "null where nothing, or without them"),
        "guard_alpha": Column(F, "how far the guard let the student go, 0 to 1; null without one"),
        "guard_score": Column(F, "what the guard went by there, on its images, points: a lower "
            "bound of Δ that holds for all α at once (`gain`) or for this one (`safe`), or Δ as it "
            "is to be expected (`shrink`)"),
        "guard_p": Column(F, "its p-value there: of no gain (`gain`), of a loss by more than the "
            "margin (`safe`); or the chance that Δ is below 0 (`shrink`); null at α = 0"),
        "guard_least": Column(F, "the least Δ at α = 1 that these images could have borne out if "
            "as many flip, points; null for `shrink`, and where they are too few for any"),
        "guard_pooled": Column(N, "the student's other transfers behind the prior of `shrink`, 0 "
            "for the stated one; null for others"),
        "guard_gains": Column("list<int32>", "images that α = 0.1, 0.2, … 1 gains"),
        "guard_losses": Column("list<int32>", "images that they lose"),
        "guard_n": Column(N, "images that the guard judged on"),
        "guard_data": Column(S, "fingerprint of these images; null without a guard"),
        "delta_unguarded": Column(F, "Δ of the same run without the guard"),
        "gain_unguarded": Column(F, "gain without the guard, percent of images"),
        "loss_unguarded": Column(F, "loss without the guard, percent of images"),
        "final_loss": Column(F, "mean training loss of the last epoch"),
        "curve_loss": Column("list<double>", "mean training loss of each epoch"),
        "curve_acc": Column("list<double>", "top-1 on the views of each epoch; null if unlabelled"),
        "curve_taught": Column("list<double>", "samples taught by a teacher, each epoch, percent"),
        "waiting_share": Column(F, "time spent waiting for pixels of views, percent of the "
            "training's"),
        "path": Column(S, "folder of the saved student, relative to the sweep's; null when not "
            "saved"),
        **PROVENANCE,
        **OUTCOME,
    },
}  # fmt: skip
RUN = ("run_id", "status", "created")  # what decides which row of a run counts
PAIR = ("teacher", "student", "teacher_key", "student_key")
# What a part of any version has; rows without it are nobody's.
ESSENTIAL: dict[str, tuple[str, ...]] = {
    "pretrain": (*RUN, "model"),
    "models": (*RUN, "model", "model_key", "eval_data", "accuracy"),
    "complementarity": (*RUN, *PAIR, "eval_data", "acc_diff", "pos_flips", "neg_flips"),
    "transfer": (*RUN, *PAIR, "method", "seed", "eval_data", "settings", "student_acc", "delta"),
}
