"""Plots as files: valid, the same for the same rows, with nothing from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from kt_cli.errors import UsageError, WriteError
from kt_cli.report import plots
from tests.report import plots_toys as toys

HREF = "{http://www.w3.org/1999/xlink}href"


def one(name: str = "success") -> plots.Drawn:
    return next(plots.draw_all(toys.results(), [name]))


@pytest.mark.parametrize("suffix", plots.SUFFIXES)
def test_files_are_what_their_names_say_and_always_the_same(tmp_path: Path, suffix: str) -> None:
    first = plots.save(one("gain-loss"), tmp_path / "a", suffix)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "savefig.dpi": 10}):
        again = plots.save(one("gain-loss"), tmp_path / "b", f".{suffix.upper()}")
    assert first.name == again.name == f"gain-loss-toys.{suffix}"
    data = first.read_bytes()
    assert data == again.read_bytes()
    starts = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}
    assert data.startswith(starts[suffix])
    assert [file.name for file in first.parent.iterdir()] == [first.name]


def test_pdf_fonts_are_truetype_and_no_date_is_kept(tmp_path: Path) -> None:
    data = plots.save(one(), tmp_path, "pdf").read_bytes()
    assert b"/CIDFontType2" in data and b"/Type3" not in data
    assert b"CreationDate" not in data and data.rstrip().endswith(b"%%EOF")


def test_png_is_sized_for_a_column_at_300_dpi(tmp_path: Path) -> None:
    with Image.open(plots.save(one("delta"), tmp_path, "png")) as image:
        image.load()
        assert image.width == 975
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_files_carry_their_caption(tmp_path: Path) -> None:
    drawn = one()
    assert drawn.caption in ElementTree.fromstring(plots.svg(drawn))[0].text
    with Image.open(plots.save(drawn, tmp_path, "png")) as image:
        assert image.info["Description"] == drawn.caption
    pdf = plots.save(drawn, tmp_path, "pdf").read_bytes()
    assert b"/Subject (Share of transfers that improve the student." in pdf


@pytest.mark.parametrize("name", plots.PLOTS)
def test_svg_stands_alone(name: str) -> None:
    text = plots.svg(one(name))
    root = ElementTree.fromstring(text)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(ids)) == len(ids)
    references = [value[1:] for e in root.iter() if (value := e.get(HREF, "")).startswith("#")]
    references += re.findall(r"url\(#([^)]+)\)", text)
    assert references and set(references) <= set(ids)
    links = [value for e in root.iter() if (value := e.get(HREF)) and value[0] != "#"]
    assert all(link.startswith("data:image/png;base64,") for link in links)
    for foreign in ("<style", "<script", "@import", "<metadata", "url(http", "<text"):
        assert foreign not in text
    assert root.get("viewBox") and root.get("width", "").endswith("pt")


def test_several_svgs_in_one_page_share_no_identifier() -> None:
    found = [plots.svg(drawn) for drawn in plots.draw_all(toys.results(), ["success", "matrix"])]
    assert len(found) == 4
    ids = [name for text in found for name in re.findall(r'\bid="([^"]+)"', text)]
    assert len(set(ids)) == len(ids)


def test_names_are_text_and_no_markup(tmp_path: Path) -> None:
    hostile = ["模型", 'a"><script>alert(1)</script>', "$\\frac{1}{$", "--></svg>&amp;"]
    for drawn in plots.draw_all(toys.results(hostile, methods=("kl",)), ["matrix", "class-flips"]):
        text = plots.svg(drawn)
        ElementTree.fromstring(text)
        assert "<script" not in text
        plots.save(drawn, tmp_path, "pdf")


def test_a_large_cloud_stays_a_small_file() -> None:
    found = toys.results([f"model{i}" for i in range(60)], methods=("kl",))
    sizes = {d.name: len(plots.svg(d)) for d in plots.draw_all(found, ["knowledge", "gain-loss"])}
    assert max(sizes.values()) < 300_000


def test_an_unknown_suffix_is_refused_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.jpg") as error:
        plots.save(one(), tmp_path, ".jpg")
    assert "pdf, svg, png" in error.value.tip


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="file"):
        plots.save(one(), tmp_path / "file", "svg")


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys\n"
        "from kt_cli.report import plots\n"
        "from tests.report import plots_toys\n"
        "found = list(plots.draw_all(plots_toys.results(), ['success']))\n"
        "assert [plots.svg(one) for one in found]\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
