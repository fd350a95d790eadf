"""Files of predictions: every format, timm's layouts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import log_softmax, softmax

from kt_cli.data.images import ImageSet
from kt_cli.data.sources import open_data
from kt_cli.errors import DataError, KtError, KtWarning
from kt_cli.knowledge.external import External, predictions, read_external
from kt_cli.knowledge.file_images import images_of
from kt_cli.knowledge.predict import How, predict
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.spec import Model
from kt_cli.zoo.classes import BY_POSITION

N, C = 60, 7
CLASSES = [f"kind {c}" for c in range(C)]
IDS = [f"{CLASSES[i % C]}/{i:04d}.png" for i in range(N)]
LABELS = np.arange(N, dtype=np.int64) % C
SHUFFLED = np.random.default_rng(1).permutation(N)
LOGITS = (
    np.random.default_rng(0).normal(size=(N, C)) + 1.5 * np.eye(C)[LABELS]
).astype(np.float32)  # fmt: skip
PROBS = softmax(LOGITS, axis=1)
RANKED = np.argsort(-LOGITS, axis=1)
PRED = LOGITS.argmax(axis=1)
SAID = PROBS.max(axis=1)

Columns = dict[str, Any]


def aligned(
    external: External, ids: Sequence[str], labels: NDArray[Any], classes: Sequence[str],
    by_position: bool = False,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    images = ImageSet("data", tuple(classes), ids, labels, never_read, "")
    images = replace(images, select=BY_POSITION if by_position else None)
    said = vars(predictions(external, images, "key"))
    return {name: values for name, values in said.items() if isinstance(values, np.ndarray)}


def never_read(i: int) -> Image.Image:
    raise AssertionError(f"image {i} is read")


def align(path: Path) -> dict[str, NDArray[Any]]:
    return aligned(read_external(path), IDS, LABELS, CLASSES)


def write(path: Path, columns: Columns) -> Path:
    """Columns in the order of `SHUFFLED`; each format in its usual way."""
    mixed = {name: np.asarray(values)[SHUFFLED] for name, values in columns.items()}
    if path.suffix == ".npz":
        np.savez(path, **mixed)
        return path
    frame = pd.DataFrame(
        {name: list(values) if values.ndim == 2 else values for name, values in mixed.items()}
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif ".json" in path.name:
        lines = ".jsonl" in path.name
        frame.to_json(path, orient="records", double_precision=15, lines=lines)
    else:
        with np.printoptions(threshold=10**6):
            frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


FORMATS = [
    "a.parquet", "a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.json", "a.json.gz", "a.jsonl",
    "a.jsonl.gz", "a.npz",
]  # fmt: skip


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_answers_and_confidence(tmp_path: Path, name: str) -> None:
    columns = {"id": IDS, "label": LABELS, "pred": PRED, "confidence": SAID}
    found = align(write(tmp_path / name, columns))
    assert (found["pred"] == PRED).all()
    np.testing.assert_allclose(found["confidence"], SAID, rtol=1e-5)
    right = PRED == LABELS
    np.testing.assert_allclose(found["label_prob"][right], SAID[right], rtol=1e-5)
    assert np.isnan(found["label_prob"][~right]).all()
    assert "top5" not in found and "logits" not in found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("column", ["logits", "probabilities", "logit", "prob"])
def test_all_outputs_tell_the_rest(tmp_path: Path, name: str, column: str) -> None:
    values = LOGITS if column.startswith("logit") else PROBS
    found = align(write(tmp_path / name, {"filename": IDS, "target": LABELS, column: values}))
    assert (found["pred"] == PRED).all()
    assert (found["top5"] == RANKED[:, :5]).all()
    np.testing.assert_allclose(found["confidence"], SAID, rtol=1e-4)
    np.testing.assert_allclose(found["label_prob"], PROBS[np.arange(N), LABELS], rtol=1e-4)
    want = log_softmax(LOGITS, axis=1)
    np.testing.assert_allclose(log_softmax(found["logits"], axis=1), want, rtol=1e-3)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
@pytest.mark.parametrize("column", ["logit", "prob"])
def test_outputs_in_many_columns(tmp_path: Path, name: str, column: str) -> None:
    values = LOGITS if column == "logit" else PROBS
    # A column index beside all outputs is a number of the row, not an answer.
    columns = {"image": IDS, "y": LABELS, "index": np.arange(N)}
    columns |= {f"{column}_{c}": values[:, c] for c in reversed(range(C))}
    found = align(write(tmp_path / name, columns))
    assert (found["pred"] == PRED).all()
    np.testing.assert_allclose(softmax(found["logits"], axis=1), PROBS, rtol=1e-3)


def test_float16_outputs(tmp_path: Path) -> None:
    columns = {"id": IDS, "pred": PRED, "logits": LOGITS.astype(np.float16)}
    np.testing.assert_allclose(
        align(write(tmp_path / "a.npz", columns))["confidence"], SAID, rtol=3e-3
    )


@pytest.mark.parametrize("name", FORMATS)
def test_names_of_classes(tmp_path: Path, name: str) -> None:
    names = np.array(CLASSES)
    columns = {"path": IDS, "ground_truth": names[LABELS], "prediction": names[PRED]}
    found = align(write(tmp_path / name, columns))
    assert (found["pred"] == PRED).all()
    assert np.isnan(found["confidence"]).all() and np.isnan(found["label_prob"][PRED != LABELS][0])


def test_what_is_given_goes_before_what_follows(tmp_path: Path) -> None:
    sure = np.sqrt(SAID)
    columns = {"id": IDS, "pred": PRED, "confidence": sure, "label_prob": SAID * 0.25,
               "top5": RANKED[:, :5], "logits": LOGITS}  # fmt: skip
    found = align(write(tmp_path / "a.parquet", columns))
    np.testing.assert_allclose(found["confidence"], sure, rtol=1e-6)
    np.testing.assert_allclose(found["label_prob"], SAID * 0.25, rtol=1e-6)
    assert (found["top5"] == RANKED[:, :5]).all()


def test_names_that_look_like_nothing_or_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,label,pred\n0012,NA,None\n12,None,None\n")
    found = aligned(read_external(path), ["12", "0012"], np.array([1, 0]), ["NA", "None"])
    assert found["pred"].tolist() == [1, 1]


def ids_of_rows(ids: list[str]) -> list[str]:
    return [ids[i] for i in SHUFFLED]


@pytest.mark.parametrize("index", [IDS, [str(i) for i in range(N)], range(N)])
def test_an_index_without_a_name_is_the_images(tmp_path: Path, index: Any) -> None:
    frame = pd.DataFrame({"label": LABELS, "pred": PRED}, index=index).iloc[SHUFFLED]
    frame.to_parquet(tmp_path / "a.parquet")
    ids = list(map(str, index))
    found = aligned(read_external(tmp_path / "a.parquet"), ids, LABELS, CLASSES)
    assert (found["pred"] == PRED).all()
    # Beside names of images it is left alone, and where it counts the rows it is none.
    frame.assign(file=ids_of_rows(IDS)).to_parquet(tmp_path / "b.parquet")
    assert (align(tmp_path / "b.parquet")["pred"] == PRED).all()
    named = frame.assign(id=ids_of_rows(ids)).set_index("id", drop=False)
    named.to_parquet(tmp_path / "named.parquet")
    assert read_external(tmp_path / "named.parquet").ids == ids_of_rows(ids)
    frame.sort_index().reset_index(drop=True).to_parquet(tmp_path / "c.parquet")
    assert read_external(tmp_path / "c.parquet").ids is None


def test_what_lies_beside_the_predictions_in_npz(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", filename=IDS, label=LABELS, logits=LOGITS, classes=CLASSES,
        accuracy=0.5, images=np.zeros((N, 2, 2), np.uint8),
    )  # fmt: skip
    assert (align(tmp_path / "a.npz")["pred"] == PRED).all()
    np.savez(tmp_path / "b.npz", id=IDS, pred=3)
    refused(tmp_path / "b.npz", "has no predictions, but id")


def test_predictions_that_kt_keeps(make_model: Callable[..., Model]) -> None:
    images = open_data(DataSpec("digits", limit=30)).eval
    how = How(EvalSpec(), torch.device("cpu"), workers=0)
    kept = predict(make_model("a"), images, how)
    assert kept.path is not None
    found = aligned(read_external(kept.path), images.ids, images.labels, images.classes)
    for name in ("pred", "confidence", "label_prob", "top5"):
        np.testing.assert_array_equal(found[name], getattr(kept, name))
    assert "logits" not in found


def test_json_lines_and_lists_by_column(tmp_path: Path) -> None:
    rows = [{"id": i, "pred": int(p)} for i, p in zip(IDS, PRED, strict=True)]
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    columns = {"id": IDS, "pred": PRED.tolist(), "logits": LOGITS.tolist()}
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    for name in ("lines.json", "columns.json"):
        assert (align(tmp_path / name)["pred"] == PRED).all()


# --- timm's inference.py -------------------------------------------------------------------------

DESCRIBED = [f"kind's {c}, or such" for c in range(C)]
NAMED = np.array(CLASSES, object)


def inference(
    path: Path, *, k: int, kind: str = "prob", index: bool, label: bool, separate: bool = False
) -> Path:
    """Write what timm's inference.py writes with --topk k: one array or k columns each."""
    values = PROBS if kind == "prob" else LOGITS
    columns: dict[str, NDArray[Any]] = {}
    if k:
        best = RANKED[:, :k]
        columns |= {"index": best} if index else {}
        columns |= {"label": NAMED[best]} if label else {}
        values = np.take_along_axis(values, best, axis=1)
    columns[kind] = values
    rows: Columns = {"filename": [IDS[i].split("/")[1] for i in SHUFFLED]}
    for name, array in columns.items():
        if separate and values.shape[1] > 1:
            rows |= {f"{name}_{i}": array[SHUFFLED, i] for i in range(array.shape[1])}
        else:
            mixed = array[SHUFFLED]
            rows[name] = list(mixed[:, 0] if mixed.shape[1] == 1 else mixed)
    _save(pd.DataFrame(rows), path)
    return path


def _save(frame: pd.DataFrame, path: Path) -> None:
    if path.name.startswith("split"):
        frame.to_json(path, indent=4, orient="split", index=False)
    elif path.suffix == ".json":
        frame.set_index("filename").to_json(path, indent=4, orient="index")
    elif path.suffix == ".parquet":
        frame.set_index("filename").to_parquet(path)
    else:
        with np.printoptions(threshold=10**6):
            frame.to_csv(path, index=False)


TIMM_FORMATS = ["a.csv", "a.json", "split.json", "a.parquet"]


@pytest.mark.parametrize("name", TIMM_FORMATS)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("index", "label"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("k", [1, 5, C])
def test_best_of_timm(
    tmp_path: Path, name: str, separate: bool, index: bool, label: bool, k: int
) -> None:
    path = inference(tmp_path / name, k=k, index=index, label=label, separate=separate)
    read = read_external(path)
    assert read.label is None  # its label is the answer
    found = aligned(read, IDS, LABELS, CLASSES)
    assert (found["pred"] == PRED).all()
    np.testing.assert_allclose(found["confidence"], SAID, rtol=1e-5)
    assert ("top5" in found) == (k >= 5)
    if k >= 5:
        assert (found["top5"] == RANKED[:, :5]).all()
    among = (RANKED[:, :k] == LABELS[:, None]).any(axis=1)
    np.testing.assert_allclose(
        found["label_prob"], np.where(among, PROBS[np.arange(N), LABELS], np.nan), rtol=1e-5
    )


@pytest.mark.parametrize("name", TIMM_FORMATS)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("kind", ["prob", "logit"])
def test_all_outputs_of_timm(tmp_path: Path, name: str, separate: bool, kind: str) -> None:
    path = inference(tmp_path / name, k=0, kind=kind, index=False, label=False, separate=separate)
    found = align(path)
    assert (found["pred"] == PRED).all()
    np.testing.assert_allclose(softmax(found["logits"], axis=1), PROBS, rtol=1e-3)


@pytest.mark.parametrize("separate", [False, True])
def test_best_logits_of_timm_are_no_probabilities(tmp_path: Path, separate: bool) -> None:
    path = inference(
        tmp_path / "a.csv", k=5, kind="logit", index=True, label=False, separate=separate
    )
    found = align(path)
    assert (found["top5"] == RANKED[:, :5]).all()
    assert np.isnan(found["confidence"]).all()


def test_json_record_of_timm_is_csv(tmp_path: Path) -> None:
    csv = inference(tmp_path / "a.csv", k=5, index=True, label=True)
    assert (align(csv.rename(tmp_path / "a.json"))["pred"] == PRED).all()


def test_names_beside_an_index_decide(tmp_path: Path) -> None:
    """An index counts the classes of the model; its names say whether these are the data's."""
    read = read_external(inference(tmp_path / "a.csv", k=5, index=True, label=True))
    turned = np.roll(np.arange(C), 1)
    found = aligned(read, IDS, turned[LABELS], [CLASSES[i] for i in np.argsort(turned)])
    assert (found["pred"] == turned[PRED]).all()
    others = ["car", *CLASSES[1:]]
    with pytest.raises(
        DataError, match=rf"names the class '{CLASSES[0]}', which the data"
    ) as caught:
        aligned(read, IDS, LABELS, others)
    assert "--by-position" in caught.value.tip
    assert (aligned(read, IDS, LABELS, others, by_position=True)["pred"] == PRED).all()
    counted = [str(i) for i in range(C)]  # no names at all
    assert (aligned(read, IDS, LABELS, counted)["pred"] == PRED).all()


def test_an_index_tells_which_crane(tmp_path: Path) -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    classes = info.label_names()
    table = {"filename": list("ab"), "index": [134, 517], "label": ["crane", "crane"]}
    pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
    found = aligned(read_external(tmp_path / "a.csv"), list("ab"), np.array([134, 517]), classes)
    assert found["pred"].tolist() == [134, 517]


def test_words_of_timm_for_wordnet_ids(tmp_path: Path) -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    indices = np.array([0, 1, 607, 900])
    classes = info.label_names()
    for detailed in (False, True):
        words = [info.index_to_description(int(i), detailed=detailed) for i in indices]
        path = tmp_path / f"{detailed}.csv"
        pd.DataFrame(
            {"filename": list("abcd"), "label": words, "prob": [0.5, 0.25, 1, 0.1]}
        ).to_csv(path, index=False)
        found = aligned(read_external(path), list("abcd"), indices, classes)
        assert (found["pred"] == indices).all()
        top = pd.DataFrame({"filename": ["a"], "label": [np.array(words, object)]})
        top.to_csv(path, index=False)  # printed in quotes of both kinds, over several lines
        read = read_external(path)
        assert read.answers is not None and read.answers.tolist() == [words]
    pd.DataFrame({"filename": ["a"], "label": ["crane"]}).to_csv(path, index=False)
    with pytest.raises(DataError, match="two classes") as caught:
        aligned(read_external(path), ["a"], np.array([134]), classes)
    assert "--include-index" in caught.value.tip


def test_names_go_before_indices_of_another_order(tmp_path: Path) -> None:
    names = np.array(CLASSES, object)
    columns = {"id": IDS, "index": C - 1 - PRED, "label": names[PRED]}
    assert (align(write(tmp_path / "a.parquet", columns))["pred"] == PRED).all()


def test_index_beside_the_truth(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", {"id": IDS, "index": PRED, "label": LABELS})
    read = read_external(path)
    assert read.label is not None and (read.label == LABELS[SHUFFLED]).all()
    names = np.array(CLASSES)
    path = write(tmp_path / "b.csv", {"id": IDS, "index": PRED, "label": names[LABELS]})
    with pytest.raises(DataError, match="not the name of its index") as caught:
        read_external(path)
    assert "pred" in caught.value.tip


# --- what is refused ------------------------------------------------------------------------------


def refused(path: Path, message: str) -> DataError:
    with pytest.raises(DataError, match=message) as caught:
        align(path)
    assert path.name in caught.value.message
    return caught.value


def test_logits_called_probabilities(tmp_path: Path) -> None:
    error = refused(
        write(tmp_path / "a.npz", {"id": IDS, "probabilities": LOGITS}), "do not add up to 1"
    )
    assert "logits" in error.tip
    refused(write(tmp_path / "a.csv", {"id": IDS, "pred": PRED, "prob": 100 * SAID}), "no prob")
    broken = PROBS.copy()
    broken[3, 2] = np.nan
    refused(write(tmp_path / "b.npz", {"id": IDS, "probabilities": broken}), "not all finite")


@pytest.mark.parametrize("separate", [False, True])
def test_best_probabilities_without_their_classes(tmp_path: Path, separate: bool) -> None:
    path = inference(tmp_path / "a.csv", k=3, index=False, label=False, separate=separate)
    assert "--include-index" in refused(path, "do not add up").tip


def test_what_tells_no_answer(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "a.csv", {"id": IDS, "score": SAID}), "id, score")
    assert "pred" in error.tip and "prob_0" in error.tip
    # Whole numbers called label may be the truth or an answer.
    refused(write(tmp_path / "b.csv", {"id": IDS, "label": PRED}), "does not tell")
    wide = {f"x{i}": LABELS for i in range(40)}
    refused(write(tmp_path / "c.csv", wide), "x0, .* and 28 more")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("pred", [*PRED[:-1], C], f"class {C}, which is none"),
        ("pred", [*PRED[:-1], -1], "class -1"),
        ("pred", PRED + 0.5, "neither whole numbers nor names"),
        ("pred", ["kind 9", *NAMED[PRED[1:]]], "'kind 9', which the data has not"),
        ("top5", RANKED[:, 1:6], "do not begin"),
        ("logits", LOGITS[:, :5], "outputs for 5 classes"),
        ("logits", LOGITS[:, ::-1], "not largest for its answer"),
        ("label", np.stack([LABELS, LABELS], 1), "several labels"),
        ("logits", [["a"] * C] * N, "not all numbers"),
    ],
)
def test_columns_that_cannot_be(tmp_path: Path, column: str, values: Any, message: str) -> None:
    columns = {"id": IDS, "pred": PRED, column: np.asarray(values)}
    refused(write(tmp_path / "a.parquet", columns), message)


@pytest.mark.parametrize(
    "cells", [("[1 2]", "[1]"), ("['a' 'b']", "['a']"), ("[1 ...]", "[2 ...]")]
)
def test_printed_lists_of_unequal_or_cut_length(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = tmp_path / "a.csv"
    pd.DataFrame({"id": ["a", "b"], "pred": cells}).to_csv(path, index=False)
    refused(path, "cannot read")


def test_empty_cells(tmp_path: Path) -> None:
    for number, values in enumerate(([1.0, None], ["kind 1", None])):
        path = tmp_path / f"{number}.csv"
        pd.DataFrame({"id": ["a", "b"], "pred": values}).to_csv(path, index=False)
        refused(path, "empty for 1 image, the first in row 2")


def test_other_labels_are_counted(tmp_path: Path) -> None:
    wrong = LABELS.copy()
    wrong[[7, 9]] = 5
    error = refused(
        write(tmp_path / "a.csv", {"id": IDS, "label": wrong, "pred": PRED}), "2 of 60 images"
    )
    assert IDS[7] in error.message and "kind 5" in error.message and "kind 0" in error.message
    assert "order" in error.tip


@pytest.mark.parametrize("name", ["a.txt", "a.parquet", "a.csv", "a.json", "a.npz", "missing.csv"])
def test_unreadable_files(tmp_path: Path, name: str) -> None:
    if name != "missing.csv":
        (tmp_path / name).write_bytes(b"\x00\xff{not a table" if name != "a.csv" else b"")
    refused(tmp_path / name, "known format" if name == "a.txt" else "cannot read|is empty|no rows")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pred=np.array([{}], object), id=np.array(["a"]))
    refused(tmp_path / "a.npz", "cannot read")


@pytest.mark.parametrize("form", ["columns", "table", "map"])
def test_further_forms_of_json(tmp_path: Path, form: str) -> None:
    frame = pd.DataFrame({"id": IDS, "pred": PRED, "label": LABELS})
    if form == "map":
        said = dict(zip(IDS, PRED.tolist(), strict=True))
        (tmp_path / "a.json").write_text(json.dumps(said))
    else:
        frame.to_json(tmp_path / "a.json", orient=form)  # type: ignore[call-overload]
    found = read_external(tmp_path / "a.json")
    assert found.ids == list(IDS) and found.answers is not None
    assert found.answers[:, 0].tolist() == PRED.tolist()


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,pred\nx,1\n", encoding="utf-16")
    refused(tmp_path / "a.csv", "is in UTF-16")


def test_different_lengths_and_no_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pred=PRED, id=np.array(IDS[1:]), mean=np.zeros(3), version=1)
    refused(tmp_path / "a.npz", "different lengths")
    (tmp_path / "a.csv").write_text("id,pred\n")
    refused(tmp_path / "a.csv", "no rows")


# --- where the images' names are -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("column", ["image_path", "IMG", "notes"])
def test_names_are_found_in_whatever_column(tmp_path: Path, name: str, column: str) -> None:
    counted = {"n": np.arange(N), "id": np.arange(N) % 9, "index of it": [str(i) for i in range(N)]}
    found = align(write(tmp_path / name, {**counted, column: IDS, "pred": PRED}))
    assert (found["pred"] == PRED).all()
    found = align(write(tmp_path / name, {**counted, column: [f"/x/{i}" for i in IDS], "y": LABELS,
                                          "pred": PRED}))  # fmt: skip
    assert (found["pred"] == PRED).all()


def test_a_file_may_know_more_images_than_the_data(tmp_path: Path) -> None:
    read = read_external(write(tmp_path / "a.csv", {"id": IDS, "pred": PRED}))
    with pytest.warns(KtWarning, match=r"a.csv has 3 images that the data lacks: left out"):
        found = aligned(read, IDS[3:], LABELS[3:], CLASSES)
    assert (found["pred"] == PRED[3:]).all()


def test_files_of_images_that_are_others_are_no_rows_in_order(tmp_path: Path) -> None:
    others = [f"other/{i}.jpg" for i in range(N)]
    refused(write(tmp_path / "a.csv", {"shown": others, "pred": PRED}), "0 of the data's 60 images")


def test_rows_without_names_are_said_to_be_in_order_but_where_labels_show_it(
    tmp_path: Path,
) -> None:
    columns = {"said of it": [f"note {i}" for i in range(N)], "pred": PRED[SHUFFLED]}
    path = _csv(tmp_path / "a.csv", columns)
    with pytest.warns(KtWarning, match="no column of .* has the images' names"):
        align(path)
    align(_csv(tmp_path / "b.csv", {**columns, "label": LABELS}))


def test_separators_and_marks_of_spreadsheets(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a; b.png", "c,d.png"], "pred": [1, 0]})
    frame.to_csv(tmp_path / "a.csv", sep=";", index=False, encoding="utf-8-sig")
    found = aligned(
        read_external(tmp_path / "a.csv"), ["c,d", "a; b"], np.array([0, 1]), ["x", "y"]
    )
    assert found["pred"].tolist() == [0, 1]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,pred\nx/caf\xe9.png,1\nx/b.png,0\n")
    ids = [r"x/b.png", r"x/caf\xe9.png"]
    found = aligned(read_external(tmp_path / "a.csv"), ids, np.array([0, 1]), ["x", "y"])
    assert found["pred"].tolist() == [0, 1]


# --- what is not said as it should be -------------------------------------------------------------


@pytest.mark.parametrize("column", ["confidence", "probabilities"])
def test_probabilities_of_two_digits_are_noted(tmp_path: Path, column: str) -> None:
    values = SAID if column == "confidence" else np.eye(C)[PRED] * 0.93 + 0.01
    path = write(tmp_path / "a.csv", {"id": IDS, "pred": PRED, column: values.round(2)})
    with pytest.warns(KtWarning, match=r"a\.csv has probabilities of two digits"):
        align(path)


def test_a_probability_that_no_answer_has_is_noted(tmp_path: Path) -> None:
    """As of a file that has the probability of the positive class beside each answer."""
    said = np.where(PRED == 0, 0.02, SAID)
    path = write(tmp_path / "a.csv", {"id": IDS, "pred": PRED, "confidence": said})
    with pytest.warns(KtWarning, match=rf"a\.csv has answers with a probability below 1/{C},"):
        align(path)


def test_what_models_outputs_mean_says_nothing_of_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", {"id": IDS, "pred": PRED, "label": LABELS})
    file = read_external(path)
    images = replace(images_of([file]), select=tuple(range(C)))
    with pytest.warns(KtWarning, match=r"a\.csv: --valid-labels is of models"):
        predictions(file, images, "key")


def test_outputs_that_are_nearly_largest_for_the_answer_are_noted(tmp_path: Path) -> None:
    logits = LOGITS.copy()
    logits[[3, 5], RANKED[[3, 5], 1]] = logits[[3, 5], PRED[[3, 5]]] + 0.01
    path = write(tmp_path / "a.npz", {"id": IDS, "pred": PRED, "logits": logits})
    with pytest.warns(KtWarning, match="for 2 of 60 images its answer is not its largest output"):
        assert (align(path)["pred"] == PRED).all()


# --- classes called by numbers --------------------------------------------------------------------


def test_numbers_that_are_names(tmp_path: Path) -> None:
    classes = ["1", "2", "10"]
    labels, pred = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])
    names, ids = np.array([1, 2, 10]), list("abcd")
    for column, want in (("by name", names), ("by index", np.arange(3))):
        path = tmp_path / f"{column}.csv"
        frame = pd.DataFrame({"id": ids, "label": want[labels], "pred": want[pred]})
        frame.to_csv(path, index=False)
        assert (aligned(read_external(path), ids, labels, classes)["pred"] == pred).all()
    frame.drop(columns="label").to_csv(path, index=False)
    with pytest.raises(DataError, match="may be names") as caught:
        aligned(read_external(path), ids, labels, classes)
    assert "label" in caught.value.tip
    texts = {"id": ids, "pred": np.array(classes)[pred]}  # are names
    pd.DataFrame(texts).to_parquet(tmp_path / "a.parquet")
    found = aligned(read_external(tmp_path / "a.parquet"), ids, labels, classes)
    assert (found["pred"] == pred).all()


def test_labels_that_are_both_names_and_indices_tell_nothing(tmp_path: Path) -> None:
    classes, labels = ["0", "1", "10", "2"], np.array([0, 1, 1])
    path = tmp_path / "a.csv"
    pd.DataFrame({"id": list("abc"), "label": labels, "pred": [0, 1, 2]}).to_csv(path, index=False)
    with pytest.raises(DataError, match="may be names"):
        aligned(read_external(path), list("abc"), labels, classes)


# --- no other data --------------------------------------------------------------------------------


def test_images_from_the_files_themselves(tmp_path: Path) -> None:
    without = write(tmp_path / "a.csv", {"id": IDS, "pred": PRED})
    labelled = write(tmp_path / "b.npz", {"id": IDS, "label": LABELS, "logits": LOGITS})
    images = images_of([read_external(without), read_external(labelled)])
    assert list(images.ids) == [IDS[i] for i in SHUFFLED]
    assert images.classes == tuple(map(str, range(C)))
    assert (images.labels == LABELS[SHUFFLED]).all()
    for path in (without, labelled):
        found = aligned(read_external(path), images.ids, images.labels, images.classes)
        assert (found["pred"] == PRED[SHUFFLED]).all()
    assert images.fingerprint == images_of([read_external(labelled)]).fingerprint
    with pytest.raises(DataError, match="no images"):
        images.read(0)
    with pytest.raises(DataError, match="has labels"):
        images_of([read_external(without)])


def test_names_are_classes_in_the_order_of_folders(tmp_path: Path) -> None:
    names = np.array(["b2", "b10", "a"])
    write_csv: Callable[[str, Columns], Any] = lambda name, columns: read_external(  # noqa: E731
        _csv(tmp_path / name, columns)
    )
    first = write_csv("a.csv", {"id": list("xy"), "label": names[[0, 1]], "pred": names[[0, 0]]})
    other = write_csv("b.csv", {"id": list("yx"), "pred": names[[2, 0]]})
    ids, labels, classes = common([other, first])
    assert (ids, labels.tolist(), classes) == (["x", "y"], [1, 2], ("a", "b2", "b10"))
    assert aligned(other, ids, labels, classes)["pred"].tolist() == [1, 0]
    counting = write_csv("c.csv", {"id": list("xy"), "pred": [0, 1]})
    with pytest.raises(DataError, match=r"c\.csv counts classes") as caught:
        images_of([first, counting])
    assert "--data" in caught.value.tip
    both = write_csv("d.csv", {"id": list("xy"), "label": [0, 1], "pred": names[[0, 1]]})
    with pytest.raises(DataError, match=r"d\.csv names classes") as caught:
        images_of([both])
    assert "--data" in caught.value.tip


def common(externals: list[External]) -> tuple[Any, NDArray[np.int64], tuple[str, ...]]:
    images = images_of(externals)
    return images.ids, images.labels, images.classes


def _csv(path: Path, columns: Columns) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_files_without_names_are_in_one_order(tmp_path: Path) -> None:
    a = read_external(_csv(tmp_path / "a.csv", {"label": LABELS, "pred": PRED}))
    b = read_external(_csv(tmp_path / "b.csv", {"pred": LABELS}))
    ids, labels, classes = common([a, b])
    with pytest.warns(KtWarning, match=r"b\.csv has the images' names: .* the data's order"):
        assert (aligned(b, ids, labels, classes)["pred"] == LABELS).all()
    short = read_external(_csv(tmp_path / "c.csv", {"pred": LABELS[1:]}))
    with pytest.raises(DataError, match="59 rows without names"):
        aligned(short, ids, labels, classes)


def test_of_equal_outputs_the_first_is_the_answer(tmp_path: Path) -> None:
    flat = np.zeros((N, C), np.float32)
    flat[:30, 2:] = 1.0
    columns = align(write(tmp_path / "flat.npz", {"id": IDS, "logits": flat}))
    assert (columns["pred"] == flat.argmax(axis=1)).all()
    expected = np.argsort(-flat, axis=1, kind="stable")[:, :5]
    assert (columns["top5"] == expected).all()


def test_a_class_beyond_all_bounds_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    pd.DataFrame({"id": IDS, "label": LABELS, "pred": LABELS + 2**40}).to_csv(file, index=False)
    with pytest.raises(DataError, match="have class 1,099,511,627,782, of 1,000,000 at most"):
        images_of([read_external(file)])


def test_the_probability_of_the_answer_may_stand_beside_those_of_all(tmp_path: Path) -> None:
    each = {f"prob_{c}": PROBS[:, c] for c in range(C)}
    columns = {"id": IDS, "label": LABELS, "pred": PRED, "prob": SAID, **each}
    found = align(write(tmp_path / "both.csv", columns))
    np.testing.assert_allclose(softmax(found["logits"], axis=1), PROBS, atol=1e-5)
    np.testing.assert_allclose(found["label_prob"], PROBS[range(N), LABELS], atol=1e-5)
    np.testing.assert_allclose(found["confidence"], SAID, atol=1e-6)


@pytest.mark.parametrize("classes", [10, 100])
def test_probabilities_of_two_digits_need_not_add_up(tmp_path: Path, classes: int) -> None:
    """Rounding moves each by up to half a digit."""
    import kt_cli

    random = np.random.default_rng(0)
    sharp = np.exp(4 * random.standard_normal((300, classes)))
    shares = np.round(sharp / sharp.sum(axis=1, keepdims=True), 2)
    assert 0.01 < np.abs(shares.sum(axis=1) - 1).max() < 0.2
    labels = np.where(np.arange(300) % 3, shares.argmax(axis=1), random.integers(classes, size=300))
    file = tmp_path / "two.csv"
    columns = {f"prob_{c}": shares[:, c] for c in range(classes)}
    pd.DataFrame({"label": labels, **columns}).to_csv(file, index=False)
    found = read_external(file)
    assert found.logits is not None
    np.testing.assert_allclose(np.exp(found.logits), shares, atol=1e-6)
    with pytest.warns(KtWarning, match="probabilities of two digits"):
        said = kt_cli.complementarity({"a": shares, "b": labels}, labels=labels)
    assert said.models["accuracy"][0] == pytest.approx(
        100 * np.mean(shares.argmax(axis=1) == labels)
    )


def test_two_digits_of_very_many_classes_are_too_few(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.full((3, 300), 0.0)).add_prefix("prob_")
    frame.assign(prob_0=0.2, label=0).to_csv(tmp_path / "a.csv", index=False)
    assert "write more digits" in refused(tmp_path / "a.csv", "do not add up").tip


def test_names_give_the_order_of_the_outputs() -> None:
    import kt_cli

    names, truth = ["owl", "dog", "cat"], np.array(["dog", "dog", "cat", "cat", "owl", "owl"])
    shares = np.eye(3)[[1, 1, 2, 2, 0, 1]] * 0.7 + 0.1
    said = {"a": shares, "b": shares[::-1]}
    found = kt_cli.complementarity(said, labels=truth, classes=np.array(names))
    assert found.comparison.classes == tuple(names)
    assert found.models["accuracy"].tolist() == [
        pytest.approx(100 * np.mean(np.array(names)[said.argmax(axis=1)] == truth))
        for said in (shares, shares[::-1])
    ]


def test_arrays_may_be_tensors_and_labels_objects() -> None:
    import kt_cli

    logits = torch.from_numpy(LOGITS)
    said = {
        "numpy": LOGITS, "learned": logits.clone().requires_grad_(), "half": logits.bfloat16(),
        7: PRED.astype(object),
    }  # fmt: skip
    found = kt_cli.complementarity(said, labels=LABELS.astype(object))  # type: ignore[arg-type]
    accuracies = found.models["accuracy"].tolist()
    assert accuracies[0] == accuracies[1] == accuracies[3] == 100 * (PRED == LABELS).sum() / N
    assert abs(accuracies[2] - accuracies[0]) < 10 and found.comparison.names[3] == "7"


@pytest.mark.parametrize(
    ("more", "said"),
    [({"labels": []}, "no samples"), ({"arch": "test_vit"}, "arch"), ({"refresh": True}, "refresh"),
     ({"baseline": "random"}, "baseline"), ({"limit": 3}, "limit"), ({"workers": 2}, "workers"),
     ({"class_embedding": "none"}, "class_embedding"), ({"logits": True}, "logits")],
)  # fmt: skip
def test_what_arrays_cannot_take_is_refused(more: dict[str, Any], said: str) -> None:
    import kt_cli

    with pytest.raises(KtError, match=said):
        kt_cli.complementarity({"a": PRED, "b": PRED}, **{"labels": LABELS, **more})


@pytest.mark.parametrize(
    ("said", "labels", "why"),
    [
        ({"a": [0, 1], "b": [0, 1, 1]}, [0, 1], "b is about 3 samples, labels about 2"),
        ({"a": [[0.0], [1.0]], "b": [0, 1]}, [0, 1], r"a has shape \(2, 1\)"),
        ({"a": [0, 1], "b": [0, 1]}, [[0, 1], [1, 0]], r"labels have shape \(2, 2\)"),
        ({"a": [0, 1], "b": 3}, [0, 1], "b is no array: 3"),
        ({"a": [0, 1], "b": [0, 1]}, 5, "labels is no array: 5"),
        ({"a": pd.Series([0, 1], [5, 4]), "b": [0, 1]}, pd.Series([0, 1], [4, 5]), "another index"),
        ({"a": [0, 1], "b": [0, 1]}, [0, -1], "labels have -1, which is no class, 1 such"),
        ({"a": [0, 1], "b": [0, 1]}, [0, np.nan], "labels have nan, which is no class"),
        ({"a": [0, 1], "b": [0, 1]}, [0, 1.5], "labels have 1.5, which is no class"),
        ({"a": [0, 1], "b": [0, 1]}, ["x", None], "labels have None, which is no class"),
        ({"a": np.ma.masked_equal([0, 1], 1), "b": [0, 1]}, [0, 1], "a has masked values"),
        ({"a": [[1.5, 2], [0, 1]], "b": [0, 1]}, [0, 9], "labels of a have class 9, of 2 that a"),
        ({"a": [[1.5, 2], [0, 1]], "b": [0, 9]}, [0, 1], "answers of b have class 9, of 2 that a"),
        ({"a": [[1.5, 2, 3]] * 2, "b": [[1.5, 2]] * 2}, [0, 2], "b has outputs for 2 classes"),
        ({"a": torch.empty(2, device="meta"), "b": [0, 1]}, [0, 1], "a is a tensor without values"),
        ([np.array([0, 1]), np.array([0, 1])], [0, 1], "a name or a path is needed, not ndarray"),
    ],
)
def test_arrays_that_do_not_go_together(said: Any, labels: Any, why: str) -> None:
    import kt_cli

    with pytest.raises(KtError, match=why):
        kt_cli.complementarity(said, labels=labels)


def test_pandas_in_one_order_will_do() -> None:
    import kt_cli

    index = [f"{i}.jpg" for i in range(N)]
    said = {"a": pd.Series(PRED, index), "b": PRED}
    found = kt_cli.complementarity(said, labels=pd.Series(LABELS, index))
    assert found.pairs["pos_flips"].tolist() == [0.0, 0.0]
    with pytest.raises(KtError, match="one name"):
        kt_cli.complementarity({"a": PRED, "b": PRED}, labels=LABELS, classes=["x"] * C)


def test_a_data_frame_has_a_model_in_each_column_and_tensors_may_be_sparse() -> None:
    import kt_cli

    frame = pd.DataFrame({"a": PRED, "b": LABELS})
    found = kt_cli.complementarity(frame, labels=LABELS)  # type: ignore[arg-type]
    assert found.models["model"].tolist() == ["a", "b"]
    said = {"a": (3.5 * torch.eye(C)[LABELS]).to_sparse(), "b": PRED}
    found = kt_cli.complementarity(said, labels=LABELS)
    assert found.models["accuracy"].tolist()[0] == 100.0


def test_arrays_of_other_classes_are_doubted() -> None:
    import kt_cli

    with pytest.warns(KtWarning, match=r"a: top-1 of 0\.00% is near chance"):
        kt_cli.complementarity({"a": LABELS + C, "b": LABELS}, labels=LABELS)


@pytest.mark.parametrize(
    ("rows", "tip"),
    [([[20.0, 80.0], [99.0, 1.0]], "percent"), ([[0.5, 0.6]] * 2, "If they are logits"),
     (np.log([[0.2, 0.8], [0.5, 0.5]]).tolist(), "logarithms")],
)  # fmt: skip
def test_what_probabilities_may_be_that_are_none(tmp_path: Path, rows: Any, tip: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, probabilities=np.array(rows), label=np.zeros(2, int))
    with pytest.raises(DataError, match=r"row 1 gives") as caught:
        read_external(path)
    assert tip in caught.value.tip


def test_spaces_after_commas_and_rows_without_a_list(tmp_path: Path) -> None:
    file = tmp_path / "spaced.csv"
    file.write_text("id, label, pred\n" + "".join(
        f"{i}, {label}, {pred}\n" for i, label, pred in zip(IDS, LABELS, PRED, strict=True)
    ))  # fmt: skip
    assert (align(file)["pred"] == PRED).all()
    file.write_text('id,label,logits\na,0,"[0.1, 0.2]"\nb,1,\n')
    with pytest.raises(DataError, match="logits has no list in some rows"):
        read_external(file)
