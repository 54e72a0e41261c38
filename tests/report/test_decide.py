"""What the reader decides with: the labels that an error takes, and the hardest samples, in words and pictures."""

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from dnc.record import HardSample, Record
from dnc.report import html, numbers, shots, style, summary, thumbnails
from dnc.report.headline import headline
from dnc.report.run import load, run_of
from tests.report import synthetic

NASTY = "<script>alert('x')</script>"
NO_FIGURES = {
    **{key: [] for key in ("collapse", "baguette", "cosines", "interference", "variance", "loss", "energy")},
    **{key: {} for key in ("shots", "pairs", "distributions", "views")},
}
NEW_PARTS = ("predicted", "guarantee", "hardest", "hardest_shots")


def page_of(record, pictures=None):
    """The page without its figures, which take seconds."""
    run = run_of([Record.from_json(record)], "name", None, pictures)
    return html._page(run, headline(run), NO_FIGURES, [])


def record_of(**changes):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    record["tasks"]["animal"] |= changes
    return record


def section(page, name):
    return page.split(f'<section id="{name}">')[1].split("</section>")[0]


def test_shots_that_no_number_reaches_or_that_the_sample_does_not_hold_are_marked():
    found = section(page_of(record_of(counts=[50, 768, 768])), "labels")
    assert found.count(">no number<") == 1
    assert '<td class="count strong">40</td>' in found
    assert found.count("<small>beyond the sample</small>") == 1
    assert "12,345 <small>" in found
    unknown = section(page_of(record_of(counts=None)), "labels")
    assert "eyond the sample" not in unknown


def test_a_limit_above_chance_is_no_better_than_guessing():
    record = record_of()
    record["tasks"]["animal"]["predicted"]["limit"] = 0.9
    assert "<td>no better than guessing</td>" in section(page_of(record), "labels")
    assert "guessing" not in section(page_of(record_of()), "labels")


def test_a_doubtful_label_is_marked_in_tables_and_under_pictures():
    record = record_of()
    picture = thumbnails.of_samples(Record.from_json(record), lambda _: np.zeros((8, 8), np.uint8))
    for page in (page_of(record), page_of(record, picture)):
        assert section(page, "hard").count("label may be wrong</b>") == 2
        assert ">row 0<" in page
        assert "photos/11.jpg" in page
    assert section(page_of(record), "hard").count("<img") == 0
    assert section(page_of(record, picture), "hard").count("<img") == 12


def test_ids_and_classes_of_hard_samples_are_text():
    record = synthetic.analysis({NASTY: (NASTY, '"><img src=x>')})
    for sample in record["tasks"][NASTY]["hardest"]:
        sample["id"] = f'{NASTY}" onerror="x\u202e'
    picture = thumbnails.of_samples(Record.from_json(record), lambda _: Image.new("L", (300, 2)))
    for page in (page_of(record), page_of(record, picture)):
        assert page.count("<script") == 1
        assert "<img src=x" not in page
        assert 'onerror="x' not in page
        assert "\u202e" not in page


@pytest.mark.parametrize("removed", [NEW_PARTS, *((part,) for part in NEW_PARTS)])
def test_older_files_have_no_such_sections(removed):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox"), "hat": ("red", "blue")})
    for task in record["tasks"].values():
        for part in removed:
            del task[part]
    page = page_of(record)
    assert ('id="labels"' in page) == ("predicted" not in removed)
    assert ('id="hard"' in page) == ("hardest" not in removed)


def test_an_older_file_is_drawn_with_the_same_certificates():
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    for part in NEW_PARTS:
        del record["tasks"]["animal"][part]
    old = run_of([Record.from_json(record)], "old")
    with style.theme():
        for picture in shots.shots(old)["animal"]:
            assert "predicted" not in picture.alt
            assert "exact conditional" in picture.alt


def test_only_the_tightest_certificates_are_drawn_with_prediction_and_guarantee():
    run = run_of([Record.from_json(record_of())], "new")
    with style.theme():
        every, two = shots.shots(run)["animal"]
    for picture, mine, other in ((every, "exact joint", "exact Cantelli"), (two, "exact Cantelli", "exact joint")):
        for name in (mine, "exact conditional", "predicted error", "measured error"):
            assert f">{name}<" in picture.svg
        assert "Luthra 2026 " in picture.alt
        for name in (other, "exact Chebyshev", "Luthra 2025", "CDNV"):
            assert name not in picture.svg
    assert ">95% guarantee<" in every.svg
    assert ">95% guarantee<" not in two.svg
    assert ">200<" in every.svg, "the prediction goes on past the measured shots"
    assert "exact_chebyshev" in summary.first_shots(run)[0].shots


def test_the_prediction_is_drawn_as_far_as_twice_the_measured_shots():
    task = Record.from_json(record_of()).tasks["animal"]
    m, error = shots._predicted(task, "classes")
    assert m.tolist() == [1, 2, 5, 10, 20, 50, 100, 200]
    np.testing.assert_allclose(error, task.predicted.curve[:8])


def test_what_was_not_measured_at_ten_or_a_hundred_shots_is_predicted():
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")}, shots=(1, 5, 100))
    page = page_of(record)
    curve = record["tasks"]["animal"]["predicted"]["curve"]
    assert f"<td>{1 - curve[3]:.1%} <small>predicted</small></td>" in page
    assert page.count("<small>predicted</small>") == 1
    del record["tasks"]["animal"]["predicted"]
    assert "m&nbsp;=&nbsp;5</small>" in page_of(record)


def test_predictions_are_among_the_numbers():
    rows = numbers.records(run_of([Record.from_json(record_of())], "name"))
    needed = {row["name"]: row["value"] for row in rows if row["quantity"] == "shots_needed"}
    assert needed == {"0.2": 3.0, "0.1": 40.0, "0.05": 12_345.0, "0.01": None}
    assert len({tuple(list(row.values())[:-1]) for row in rows}) == len(rows)


def recording(tasks, height=20, width=30):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (90, height, width, 3), np.uint8)
    return Record.from_json(synthetic.analysis(tasks)), images


def test_a_sheet_holds_the_hardest_samples_in_order(tmp_path):
    record, images = recording({"animal": ("cat", "dog"), "../a b": ("x", "y")})
    thumbnails.save_sheets(record, images, epath.Path(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"hardest_animal.png", "hardest_a_b.png"}
    found = thumbnails.load_sheets(record, tmp_path)
    assert list(found) == ["animal", "../a b"]
    for pictures in found.values():
        assert list(pictures) == [sample.row for sample in record.tasks["animal"].hardest]
        for row, picture in pictures.items():
            assert picture.size == (90, 60), "three times as large"
            np.testing.assert_array_equal(np.asarray(picture)[1::3, 1::3], images[row])


@pytest.mark.parametrize("damage", ["cut", "other rows", "not JSON", "text"])
def test_a_sheet_that_is_not_of_these_samples_is_left_out(tmp_path, damage):
    record, images = recording({"animal": ("cat", "dog")})
    thumbnails.save_sheets(record, images, epath.Path(tmp_path))
    path = tmp_path / "hardest_animal.png"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("<script>")
    else:
        path.write_bytes(content.replace(b"[0, 7", b"[1, 7" if damage == "other rows" else b"[[[[["))
    assert thumbnails.load_sheets(record, tmp_path) == {"animal": {}}


def test_a_run_shows_the_sheets_in_its_folder(tmp_path):
    workdir = synthetic.workdir(tmp_path / "w", {"digit": ("0", "1")}, (0, 8))
    record = Record.from_json(json.loads((workdir / "measurements/step_00000008.json").read_text()))
    thumbnails.save_sheets(record, recording({"digit": ("0", "1")})[1], epath.Path(workdir / "images"))
    assert len(load(workdir).thumbnails["digit"]) == 12


def test_thumbnails_are_small_and_weigh_little(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (500, 400, 3), np.uint8)
    assert thumbnails.thumbnail(noise).size == (90, 112)
    assert thumbnails.thumbnail(Image.new("RGBA", (5000, 1))).size == (112, 1)
    assert thumbnails.thumbnail(np.zeros((8, 8, 1), np.uint8)).size == (112, 112)
    samples = [HardSample(row, "a", "b", 0.5, False) for row in range(12)]
    names = ["first", "second", "third"]
    pictures = {name: {row: thumbnails.thumbnail(noise) for row in range(12)} for name in names}
    weight = sum(map(len, thumbnails.data_uris(pictures, {"first": samples})["first"]))
    assert weight < thumbnails._MAX_BYTES / 5
    monkeypatch.setattr(thumbnails, "_MAX_BYTES", 2.5 * weight)
    uris = thumbnails.data_uris(pictures, dict.fromkeys(names, samples))
    assert len(uris["first"]) == 12
    assert uris["third"] == []
    assert thumbnails.data_uris({}, {"a": samples}) == {"a": []}
