"""The printed numbers of the paper."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lmme3dhf.comparison.methods import ComparisonError
from lmme3dhf.comparison.paper import PAPER_NUMBERS, PaperTable, read_paper


def cells(table: PaperTable, name: str) -> list[float]:
    row = next(row for row in table.rows if name in (row.name, row.number))
    return [row.values[column.key] for column in table.columns]


def test_every_row_of_the_five_tables_is_there():
    """Counted in the paper's text. Catches a row that was lost in copying."""
    paper = read_paper()
    assert [len(paper[number].rows) for number in (1, 2, 3, 4, 5)] == [41, 6, 18, 4, 6]
    groups = Counter(row.group for row in paper[1].rows)
    assert groups == {"handcrafted IQA": 9, "deep IQA": 12, "deep VQA": 11, "LMM": 9}
    assert [row.name for row in paper[1].rows if row.inferred] == ["ResNet-18", "CNNIQA"]


@pytest.mark.parametrize(
    ("table", "name", "printed"),
    [
        (1, "ResNet-18", [0.7716, 0.8087, 0.5773, 0.7743, 0.8173, 0.5857]),
        (1, "CNNIQA", [0.6664, 0.7027, 0.4787, 0.6321, 0.6724, 0.4497]),
        (1, "BPRI-LSSn", [0.1121, 0.0999, 0.0751, 0.1174, 0.1168, 0.0783]),
        (1, "LMME3DHF", [0.9000, 0.9415, 0.7363, 0.9203, 0.9555, 0.7694]),
        (2, "Video-ChatGPT", [8.490]),
        (3, "SWD", [0.4907, 0.1450, 0.0074, 0.0125, 4.9388]),
        (4, "2", [0.4574, 0.0026, 0.0025, 0.0127, 5.0163]),
        (5, "5", [0.9028, 0.9424, 0.7406, 0.9234, 0.9571, 0.7741, 54.24]),
        (5, "6", [0.9052, 0.9420, 0.7470, 0.9226, 0.9561, 0.7731, 53.12]),
    ],
)
def test_cells_are_those_of_the_paper(table: int, name: str, printed: list[float]):
    """Copied by hand from the paper. Catches shifted columns and swapped rows."""
    assert cells(read_paper()[table], name) == printed


def ranked(table: PaperTable, key: str) -> list[str]:
    column = next(column for column in table.columns if column.key == key)
    order = sorted(table.rows, key=lambda row: row.values[key], reverse=column.higher)
    return [order[0].name, order[1].name]


def test_best_and_second_are_what_the_paper_says():
    """Section 5.2 and 5.3: LMME3DHF is best everywhere; the second-best by eye. Catches a digit
    that was misread.
    """
    paper = read_paper()
    assert ranked(paper[1], "quality_srcc") == ["LMME3DHF", "Swin3D-T"]
    assert ranked(paper[1], "quality_krcc") == ["LMME3DHF", "Swin3D-T"]
    assert ranked(paper[1], "authenticity_srcc") == ["LMME3DHF", "Swin-S"]
    assert ranked(paper[1], "authenticity_plcc") == ["LMME3DHF", "Swin-L"]
    assert ranked(paper[2], "accuracy") == ["LMME3DHF", "InternVL2.5 (8B)"]
    for column in paper[3].columns:
        assert ranked(paper[3], column.key) == ["LMME3DHF", "Sal-CFS-GAN"]


def test_the_row_of_improvements_follows_from_the_others_but_for_one():
    """In points of the distance to the best other method, at most .1 off by cutting. Catches a
    misread best or second-best; the one exception is the paper's, and a note says so.
    """
    table = read_paper()[1]
    odd = []
    for column in table.columns:
        others = max(row.values[column.key] for row in table.rows if not row.ours)
        gain = 100 * (table.ours.values[column.key] - others)
        if abs(gain - table.improvement[column.key]) > 0.1 + 1e-9:
            odd.append(column.key)
    assert odd == ["authenticity_plcc"]
    assert any("+8.2 is the distance to Swin3D-T" in note for note in table.notes)


def test_the_ablations_default_row_is_table_3s_and_marked():
    """Catches check marks in the wrong columns."""
    paper = read_paper()
    assert cells(paper[4], "4") == cells(paper[3], "LMME3DHF")
    assert paper[5].ours.number == "5"
    assert [row.marks for row in paper[5].rows[2:4]] == [
        {"vision": False, "llm": False, "regression": True},
        {"vision": True, "llm": True, "regression": False},
    ]


def changed(tmp_path: Path, change: Callable[[dict], None]) -> Path:
    content = yaml.safe_load(PAPER_NUMBERS.read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "numbers.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["tables"][1]["rows"][0].update(colour="red"), "unknown key 'colour'"),
        (lambda c: c["tables"][1]["rows"][0].pop("group"), "missing key 'group'"),
        (
            lambda c: c["tables"][1]["rows"][0]["values"].__setitem__(0, 23.44),
            "quality_srcc is 23.44",
        ),
        (lambda c: c["tables"][1]["rows"][0]["values"].pop(), "expected 6 numbers"),
        (lambda c: c["tables"][1]["rows"][0].update(direction="up"), "direction 'up'"),
        (lambda c: c["tables"][1]["rows"].append(c["tables"][1]["rows"][3]), "is there twice"),
        (lambda c: c["tables"].pop(4), "missing key '4'"),
        (lambda c: c["tables"][2]["rows"][-1].pop("ours"), "0 rows with `ours`"),
        (lambda c: c["tables"][1]["rows"][0]["values"].__setitem__(0, True), "is True"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, change: Callable, told: str):
    """Catches a misprint that would stand in a table unnoticed."""
    with pytest.raises(ComparisonError, match=told):
        read_paper(changed(tmp_path, change))


def test_an_absent_file_says_how_to_go_on(tmp_path: Path):
    """As in an installed package. Catches a traceback."""
    with pytest.raises(ComparisonError, match="--paper_numbers FILE"):
        read_paper(tmp_path / "none.yaml")
