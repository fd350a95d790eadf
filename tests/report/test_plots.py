"""What plots show is what the rows say: artists' data against pandas and NumPy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kt_cli.errors import UnknownName
from kt_cli.report import plots
from kt_cli.report.intervals import mean_interval
from kt_cli.report.planned import MODELS
from kt_cli.report.plots import binning, classes, style
from kt_cli.report.query import Query
from kt_cli.report.read import Results, read_results
from kt_cli.rows import scan, store
from tests.report import plots_toys as toys


def drawn(found: Results, name: str) -> plots.Drawn:
    (one,) = plots.draw_all(found, [name])
    return one


def figure(found: Results, name: str) -> Figure:
    return drawn(found, name).figure


def lines(axes: Axes, count: int | None = None) -> list[Line2D]:
    """Lines with data, of so many points where that is said."""
    found = [line for line in axes.get_lines() if len(line.get_xdata())]
    return [line for line in found if count is None or len(line.get_xdata()) == count]


def edited(found: Results, table: str, **columns: object) -> Results:
    return Results({**found.frames, table: found.frames[table].assign(**columns)})


def test_knowledge_shows_every_pair_their_median_and_chance() -> None:
    found = toys.results(untrained=2)
    rows = found.ok("complementarity")
    chance = rows["teacher"].str.startswith("random:")
    (axes,) = figure(found, "knowledge").axes
    pairs = rows[~chance]
    np.testing.assert_allclose(
        axes.collections[0].get_offsets(), pairs[["acc_diff", "pos_flips"]].to_numpy()
    )
    levels = [line.get_ydata()[0] for line in lines(axes, 2)]
    assert pytest.approx(rows[chance]["pos_flips"].median()) == levels[-1]
    limits = binning.edges(pairs["acc_diff"].to_numpy())
    cut = pairs.groupby(pd.cut(pairs["acc_diff"], limits, right=False), observed=True)
    medians = cut["pos_flips"].median()[cut.size() >= binning.FEWEST]
    (shown,) = [line for line in axes.get_lines() if line.get_marker() == "s"]
    np.testing.assert_allclose(shown.get_ydata(), medians)


def test_no_pair_lies_below_the_least_possible() -> None:
    (axes,) = figure(toys.results(), "knowledge").axes
    (least,) = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    points = np.asarray(axes.collections[0].get_offsets())
    assert (points[:, 1] >= np.interp(points[:, 0], *least.get_data())).all()


def test_entropy_is_held_against_uniform_flips() -> None:
    found = toys.results()
    (axes,) = figure(found, "entropy").axes
    uniform = [line.get_ydata()[0] for line in lines(axes, 2) if line.get_linestyle() == ":"]
    assert uniform == [pytest.approx(math.log(12))]


def test_many_pairs_become_hexagons_that_count_them_all() -> None:
    found = toys.results([f"model{i}" for i in range(60)], methods=("kl",))
    axes = figure(found, "knowledge").axes
    counts = axes[0].collections[0].get_array()
    assert counts is not None and counts.sum() == 60 * 59
    assert axes[1].get_ylabel() == "pairs per hexagon"
    assert axes[0].collections[0].get_rasterized()


def examples_by_hand(pairs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    records = sorted(pairs.to_dict("records"), key=lambda row: (row["teacher"], row["student"]))
    aims = {"weak": np.quantile(pairs["acc_diff"], 0.1), "equal": 0.0,
            "strong": np.quantile(pairs["acc_diff"], 0.9)}  # fmt: skip
    fits = {"weak": lambda d: d < 0, "equal": lambda d: True, "strong": lambda d: d > 0}
    best = {
        kind: min((row for row in records if fits[kind](row["acc_diff"])),
                  key=lambda row, aim=aim: abs(row["acc_diff"] - aim))
        for kind, aim in aims.items()
    }  # fmt: skip
    return {kind: (row["teacher"], row["student"]) for kind, row in best.items()}


def test_class_flips_are_those_of_the_pairs_that_are_named() -> None:
    found = toys.results()
    rows = found.ok("complementarity")
    trained = rows[~rows["teacher"].str.startswith("random:")]
    chosen = examples_by_hand(trained)
    plot = drawn(found, "class-flips")
    shown = lines(plot.figure.axes[0], 12)
    assert len(shown) == len(chosen) == 3
    for line, (kind, (teacher, student)) in zip(shown, chosen.items(), strict=True):
        (flips,) = trained[(trained["teacher"] == teacher) & (trained["student"] == student)][
            "flips_by_class"
        ]
        wanted = sorted((100 * flips / flips.sum()).tolist(), reverse=True)
        np.testing.assert_allclose(line.get_ydata(), wanted)
        assert f"{kind.capitalize()}: {teacher} → {student}" in plot.caption


def test_class_flips_are_read_for_the_chosen_pairs_alone(tmp_path: Path) -> None:
    toy = toys.results()
    rows = toy.frames["complementarity"].drop(columns="sweep")
    rows = rows.assign(run_id=[f"run{i}" for i in range(len(rows))], attempt=1)
    records = [
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
        for row in rows.to_dict("records")
    ]
    store.write(tmp_path / "toys", "complementarity", records)
    needs = plots.PLOTS["class-flips"].needs
    assert "flips_by_class" not in needs["complementarity"]
    found = read_results([tmp_path / "toys"], needs)
    assert "flips_by_class" not in found.frames["complementarity"]
    assert plots.svg(drawn(found, "class-flips")) == plots.svg(drawn(toy, "class-flips"))
    # Wherever the rows are, planned or not.
    (tmp_path / "toys" / "sweep.toml").write_text('name = "toys"\n')
    (tmp_path / "toys" / MODELS).write_text('["gone"]')
    first = tmp_path / "0" / "toys"
    store.write(first, "complementarity", [{**records[0], "status": "failed", "error": "x"}])
    (first / "sweep.toml").write_text('name = "toys"\n')
    found = read_results([first, tmp_path / "toys"], needs, Query(all_rows=True))
    assert plots.svg(drawn(found, "class-flips")) == plots.svg(drawn(toy, "class-flips"))


def test_examples_are_different_pairs() -> None:
    rows = toys.results(["a", "b"], untrained=0).ok("complementarity")
    assert len(classes.examples(rows).drop_duplicates(["teacher", "student"])) == 2


def test_class_similarity_boxes_are_quantiles() -> None:
    found = toys.results()
    rows = found.ok("complementarity")
    trained = rows[~rows["teacher"].str.startswith("random:")]
    left, right = figure(found, "class-similarity").axes
    quantiles = trained["top20_similarity_pct"].quantile([0.25, 0.75])
    box = left.patches[2].get_path().vertices[:, 1]
    np.testing.assert_allclose([box.min(), box.max()], quantiles)
    above = (trained["top2_similarity"] - trained["class_similarity"]).median()
    medians = [line.get_ydata()[0] for line in right.get_lines() if line.get_linewidth() > 1.3]
    assert medians[0] == pytest.approx(above)


def test_success_is_the_share_of_positive_deltas() -> None:
    found = toys.results(seeds=2)
    rows = found.ok("transfer")
    axes, beside = figure(found, "success").axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["kl", "kl-dp", "kl-dp+guard"]
    shares = rows.assign(success=100.0 * (rows["delta"] > 0)).groupby("method")["success"].mean()
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], shares)
    one = mean_interval(rows[rows["method"] == "kl"].assign(success=100.0 * (rows["delta"] > 0)),
                        "success", percent=True)  # fmt: skip
    np.testing.assert_allclose(lines(axes, 2)[0].get_xdata(), [one.low, one.high])
    means = rows.groupby("method")["delta"].mean()
    np.testing.assert_allclose(lines(beside, 3)[0].get_xdata(), means)
    mean = mean_interval(rows[rows["method"] == "kl"], "delta")
    np.testing.assert_allclose(lines(beside, 2)[0].get_xdata(), [mean.low, mean.high])


def test_delta_is_the_mean_in_each_bin() -> None:
    found = toys.results(methods=("kl", "kl-dp"))
    rows = found.ok("transfer")
    (axes,) = figure(found, "delta").axes
    limits = binning.edges(rows["acc_diff"].to_numpy())
    cut = pd.cut(rows["acc_diff"], limits, right=False)
    means = rows.groupby(["method", cut], observed=True)["delta"].mean()
    shown = [bars.lines[0].get_ydata() for bars in axes.containers]
    assert len(shown) == 2
    for method, y in zip(("kl", "kl-dp"), shown, strict=True):
        np.testing.assert_allclose(y, means[method])


def test_many_methods_each_have_axes_of_their_own() -> None:
    found = toys.results(methods=toys.TWELVE)
    rows = found.ok("transfer")
    shown = figure(found, "rate-classes").axes
    assert [axes.get_title(loc="left") for axes in shown] == list(toys.TWELVE)
    columns = ["top2_rate", "top5_rate", "top20_rate", "top50_rate", "transfer_rate"]
    for axes, method in zip(shown, toys.TWELVE, strict=True):
        means = rows.loc[rows["method"] == method, columns].mean()
        np.testing.assert_allclose(axes.containers[0].lines[0].get_ydata(), means)


def test_gain_and_loss_have_the_means_of_each_method() -> None:
    found = toys.results()
    (axes,) = figure(found, "gain-loss").axes
    means = found.ok("transfer").groupby("method")[["loss", "gain"]].mean()
    shown = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines(axes, 1)]
    np.testing.assert_allclose(shown, means)
    assert axes.get_xlim() == axes.get_ylim()
    points = np.asarray(axes.collections[0].get_offsets())
    beyond = len(found.ok("transfer")) - len(points)
    assert (f"{beyond} transfer" in drawn(found, "gain-loss").caption) == (beyond > 0)


def test_rate_by_size_follows_the_students_parameters() -> None:
    found = toys.results(methods=("kl",))
    rows, models = found.ok("transfer"), found.ok("models").set_index("model")["params_m"]
    order = models.sort_values()
    assert (order.to_numpy()[1:] > 1.25 * order.to_numpy()[:-1]).sum() == 4  # two are alike
    groups = (order > 1.25 * order.shift(fill_value=0)).cumsum()
    means = rows.groupby(rows["student"].map(groups))["transfer_rate"].mean()
    (axes,) = figure(found, "rate-size").axes
    shown = axes.containers[0].lines[0]
    np.testing.assert_allclose(shown.get_ydata(), means)
    sizes = rows.groupby(rows["student"].map(groups))["student"].apply(
        lambda students: np.exp(np.log(students.map(models)).mean())
    )
    np.testing.assert_allclose(shown.get_xdata(), sizes)


def test_matrix_has_students_as_rows_most_accurate_first() -> None:
    found = toys.results(methods=("kl",), seeds=2)
    rows = found.ok("transfer")
    axes = figure(found, "matrix").axes[0]
    wanted = rows.pivot_table(index="student", columns="teacher", values="delta")
    wanted = wanted.loc[list(toys.MODELS), list(toys.MODELS)]
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan), wanted)
    low, high = axes.images[0].get_clim()
    assert low == -high < 0
    texts = [text.get_text() for text in axes.get_yticklabels()]
    assert texts[0] == "vit_base_patch16_224" and texts[1:3] == list(toys.MODELS[1:3])


def test_matrix_of_many_models_is_one_of_accuracies() -> None:
    names = [f"model{i:02}" for i in range(50)]
    found = toys.results(names, methods=("kl",))
    rows = found.ok("transfer")
    values = figure(found, "matrix").axes[0].images[0].get_array()
    assert values.shape == (20, 20)
    best = sorted(names, key=lambda m: -rows[rows["student"] == m]["student_acc"].iloc[0])
    limits = np.quantile(rows.groupby("student")["student_acc"].first(), [0.95])
    top = [m for m in best if rows[rows["student"] == m]["student_acc"].iloc[0] >= limits[0]]
    both = rows[rows["student"].isin(top) & rows["teacher"].isin(top)]
    assert values[0, 0] == pytest.approx(both["delta"].mean())
    assert not list(plots.draw_all(edited(found, "transfer", teacher_acc=np.nan), ["matrix"]))


def test_matrices_of_accuracies_stand_beside_each_other() -> None:
    names = [f"model{i:02}" for i in range(50)]
    found = toys.results(names, methods=("kl", "kl-dp"))
    (drawn,) = plots.draw_all(found, ["matrix"])
    assert drawn.file == "matrix-toys" and "of each method" in drawn.caption
    kl, dp, _ = drawn.figure.axes
    assert [axes.get_title(loc="left") for axes in (kl, dp)] == ["kl", "kl-dp"]
    for axes, method in ((kl, "kl"), (dp, "kl-dp")):
        values = axes.images[0].get_array()
        rows = found.ok("transfer")
        mine = Results({**found.frames, "transfer": rows[rows["method"] == method]})
        (alone,) = plots.draw_all(mine, ["matrix"])
        np.testing.assert_allclose(values, alone.figure.axes[0].images[0].get_array())
    assert kl.images[0].get_clim() == dp.images[0].get_clim()


def test_methods_are_never_mixed_in_a_matrix() -> None:
    """Also where fewer models have a Δ than there are."""
    names = [f"model{i:02}" for i in range(50)]
    found = toys.results(names, methods=("kl", "kl-dp"))
    rows = found.ok("transfer")
    few = rows["student"].isin(names[:20]) & rows["teacher"].isin(names[:20])
    (drawn,) = plots.draw_all(edited(found, "transfer", delta=rows["delta"].where(few)), ["matrix"])
    assert [axes.get_title(loc="left") for axes in drawn.figure.axes[:2]] == ["kl", "kl-dp"]


def test_matrices_beside_each_other_have_one_scale() -> None:
    found = toys.results(methods=("kl", "kl-dp"))
    rows = found.frames["transfer"]
    rows = rows.assign(delta=rows["delta"].where(rows["method"] == "kl", rows["delta"] / 10))
    drawn = list(plots.draw_all(Results({**found.frames, "transfer": rows}), ["matrix"]))
    scales = {one.figure.axes[0].images[0].get_clim() for one in drawn}
    assert len(drawn) == 2 and len(scales) == 1
    wanted = np.quantile(rows["delta"].abs(), 0.98)  # one seed: each cell is a row
    assert scales.pop() == pytest.approx((-wanted, wanted))


def test_there_is_a_matrix_for_each_method_and_none_for_teams() -> None:
    found = toys.results()
    assert len(list(plots.draw_all(found, ["matrix"]))) == 3
    assert not list(plots.draw_all(edited(found, "transfer", together="soup"), ["matrix"]))


def test_curves_are_means_with_quartiles() -> None:
    found = toys.results(methods=("kl",))
    rows = found.ok("transfer")
    left, middle, _ = figure(found, "curves").axes
    losses, tops = (np.stack(list(rows[name])) for name in ("curve_loss", "curve_acc"))
    np.testing.assert_allclose(lines(left)[0].get_ydata(), losses.mean(axis=0))
    np.testing.assert_allclose(lines(middle)[0].get_ydata(), (tops - tops[:, :1]).mean(axis=0))
    band = left.collections[0].get_paths()[0].vertices
    quartiles = np.quantile(losses, [0.25, 0.75], axis=0)
    for epoch in (1, 2, 3):
        at = band[band[:, 0] == epoch, 1]
        np.testing.assert_allclose([at.min(), at.max()], quartiles[:, epoch - 1])


def test_curves_may_end_early_or_be_null() -> None:
    lists = pd.Series([[1.0, 2.0], None, np.array([3.0]), [np.nan, 5.0]])
    as_read = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(lists)))
    several = pa.chunked_array([pa.array(lists[:1]), pa.array(lists[1:])])
    in_parts = pd.Series(pd.arrays.ArrowExtensionArray(several))
    for others in (as_read, in_parts):
        np.testing.assert_array_equal(scan.stacked(lists), scan.stacked(others))
    stacked = scan.stacked(as_read[::-1])[::-1]
    np.testing.assert_array_equal(stacked, [[1, 2], [3, np.nan], [np.nan, 5]])
    assert scan.stacked(pd.Series([None])).shape == (0, 0)


@pytest.mark.parametrize("name", plots.PLOTS)
def test_nothing_to_draw_is_no_figure(name: str) -> None:
    found = toys.results()
    columns = {c for cs in plots.PLOTS[name].needs.values() for c in cs} - {"by_class"}
    table = plots.PLOTS[name].table
    without = [c for c in columns if c in found.frames[table]]
    assert not list(plots.draw_all(edited(found, table, **dict.fromkeys(without, np.nan)), [name]))
    empty = Results({table: rows.iloc[:0] for table, rows in found.frames.items()})
    assert not list(plots.draw_all(empty, [name]))


@pytest.mark.parametrize("name", plots.PLOTS)
def test_some_nulls_leave_the_rest(name: str) -> None:
    found = toys.results()
    columns = {c for cs in plots.PLOTS[name].needs.values() for c in cs}
    table = plots.PLOTS[name].table
    floats = [c for c in columns if c in found.frames[table]
              and found.frames[table][c].dtype == np.float64]  # fmt: skip
    half = np.arange(len(found.frames[table])) % 2 == 0
    nulls = {c: found.frames[table][c].where(half) for c in floats}
    assert list(plots.draw_all(edited(found, table, **nulls), [name]))


def test_settings_are_never_drawn_together() -> None:
    found = toys.results()
    rows = found.frames["transfer"]
    other = rows.loc[[*rows.index, *rows.index]].reset_index(drop=True)
    other.loc[len(rows) :, ["settings", "lr"]] = "0ther", 0.1
    both = list(plots.draw_all(Results({**found.frames, "transfer": other}), ["success", "matrix"]))
    assert len(both) == 2 * 1 + 2 * 3
    assert len({one.file for one in both}) == len(both)
    assert all("settings" in one.caption for one in both)


def test_seeds_are_averaged_first_if_that_is_asked_for() -> None:
    found = toys.results(methods=("kl",), seeds=3)
    query = Query(seed_average=True)
    rows = found.ok("transfer")
    (success,) = plots.draw_all(found, ["success"], query)
    means = rows.groupby(["teacher", "student"])["delta"].mean()
    assert success.figure.axes[0].patches[0].get_width() == pytest.approx(100 * (means > 0).mean())
    (shown,) = plots.draw_all(found, ["curves"], query)
    assert f"n = {len(rows)} transfers" in shown.caption


def test_captions_say_what_is_left_out() -> None:
    found = toys.results(methods=("kl",))
    rows = found.frames["transfer"]
    failed = rows.iloc[:2].assign(status="failed", error="out of memory")
    both = {**found.frames, "transfer": pd.concat([rows, failed], ignore_index=True)}
    skipped = Results(both, (Path("part.parquet"),), {"transfer": 7})
    (shown,) = plots.draw_all(skipped, ["success"], Query(where="seed == 0"))
    assert "n = 30 transfers by kl." in shown.caption
    assert "Left out: 2 failed transfers with these settings." in shown.caption
    assert (
        "Only where seed == 0, which leaves out 7 transfers of all that were read." in shown.caption
    )
    assert "1 file that cannot be read." in shown.caption


def test_an_unknown_plot_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="sucess"):
        list(plots.draw_all(toys.results(), ["sucess"]))


GUARDED = ("kl-dp+guard", "kl-dp+safe:0.5", "kl-dp+shrink")


def test_methods_look_the_same_in_every_figure() -> None:
    alone, among = style.looks(["kl-dp"]), style.looks([*toys.TWELVE, *GUARDED, "mine"])
    assert alone["kl-dp"] == among["kl-dp"]
    seen = {(look["color"], look["marker"], look["markerfacecolor"]) for look in among.values()}
    assert len(seen) == len(among)
    assert len({look["marker"] for method, look in among.items() if "+" not in method}) == 13


def test_short_names_stay_different() -> None:
    long = [f"organisation/model_{'x' * 60}_{i}" for i in range(3)]
    middles = [f"{'a' * 40}{i}{'b' * 40}" for i in range(3)]
    short = style.short_names([*toys.MODELS, *long, *middles])
    assert len(set(short.values())) == len(short)
    assert max(map(len, short.values())) <= style.NAME
    assert short["vit_base_patch16_224.augreg2_in21k_ft_in1k"] == "vit_base_patch16_224"
    assert short["resnet50.a1_in1k"] == "resnet50.a1_in1k"
