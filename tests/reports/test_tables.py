"""The writers of one table."""

import csv
import io
import re

import pytest

from lmme3dhf.reports.tables import (
    BEST,
    SECOND,
    Block,
    Cell,
    Column,
    Row,
    Table,
    html,
    latex,
    markdown,
    marks,
)
from lmme3dhf.reports.tables import csv as csv_of
from tests.reports.html_page import ReadPage

AUC = Column(key="auc", title="AUC")
KLD = Column(key="kld", title="KLD", higher=False, decimals=2)


def block(*rows: Row, columns: tuple[Column, ...] = (AUC, KLD)) -> Block:
    return Block(title="", columns=columns, rows=rows)


def row(name: str, auc: float | None = None, kld: float | None = None, **more: object) -> Row:
    cells = {key: value for key, value in (("auc", auc), ("kld", kld)) if value is not None}
    return Row(name=name, status="real", cells=cells, **more)


def table(of: Block, **more: object) -> Table:
    return Table(name="table9", title="Table 9. Maps & more", blocks=(of,), **more)


def test_best_and_second_follow_the_direction_of_each_column():
    """By hand: the highest AUC and the lowest KLD are best. Catches one direction for all."""
    found = marks(block(row("a", 0.9, 3.0), row("b", 0.8, 1.0), row("c", 0.7, 2.0)))
    assert found == {
        (0, "auc"): BEST,
        (1, "auc"): SECOND,
        (1, "kld"): BEST,
        (2, "kld"): SECOND,
    }


def test_ties_as_printed_are_marked_alike():
    """.90001 and .90004 are printed alike. Catches a bold .9000 beside a plain .9000."""
    found = marks(block(row("a", 0.90001), row("b", 0.90004), row("c", 0.8), row("d", 0.8)))
    assert found == {
        (0, "auc"): BEST,
        (1, "auc"): BEST,
        (2, "auc"): SECOND,
        (3, "auc"): SECOND,
    }


def test_undefined_absent_and_unranked_values_are_never_best():
    """Catches NaN that sorts first, and an oracle that is printed bold."""
    rows = (row("a", float("nan")), row("b"), row("c", 0.99, ranked=False), row("d", 0.5))
    assert marks(block(*rows)) == {}
    assert marks(block(*rows, row("e", 0.4))) == {(3, "auc"): BEST, (4, "auc"): SECOND}


def test_markdown_shows_marks_groups_notes_and_what_is_missing():
    """The page as a reader sees it, written by hand. Catches a bar in a name that cuts the row, and
    a note that is printed twice.
    """
    made = table(
        block(
            row("a|b", 0.9, 3.0, group="old", notes=("both",)),
            row("c", 0.8, None, group="new", notes=("both", "own")),
        ),
        notes=("for all",),
    )
    assert markdown(made).splitlines() == [
        "## Table 9. Maps & more",
        "",
        "| Method | Status | AUC ↑ | KLD ↓ |",
        "| --- | --- | ---: | ---: |",
        "| *old* |  |  |  |",
        "| a\\|b [1] | real | **0.9000** | 3.00 |",
        "| *new* |  |  |  |",
        "| c [1, 2] | real | <u>0.8000</u> | – |",
        "",
        "Bold: best of its column in the block; underlined: second-best.",
        "",
        "- for all",
        "- [1] both",
        "- [2] own",
    ]


def test_latex_is_the_snippet_that_one_would_write_by_hand():
    """A hand-written booktabs table. Catches unescaped letters, rules under the wrong columns, and
    a plus-minus outside of math mode.
    """
    columns = (
        Column(key="mark", title="on", higher=None),
        Column(key="srcc", title="SRCC", group="Q_1"),
        Column(key="plcc", title="PLCC", group="Q_1"),
    )
    rows = (
        Row(
            name="A_1 & 50 %",
            status="real",
            cells={"mark": "✓", "srcc": Cell(0.5, 0.01), "plcc": -0.25},
            notes=("n",),
        ),
        Row(name="B", status="real", cells={"srcc": 0.75, "plcc": float("nan")}),
    )
    made = latex(table(block(*rows, columns=columns), notes=("x < 5 %",)))
    body = made[made.index("\\begin{tabular}") : made.index("\\end{table*}")]
    assert body.splitlines() == [
        "\\begin{tabular}{llrrr}",
        "\\toprule",
        " &  & \\multicolumn{1}{c}{} & \\multicolumn{2}{c}{Q\\_1} \\\\",
        "\\cmidrule(lr){4-5}",
        "Method & Status & on & SRCC & PLCC \\\\",
        "\\midrule",
        "A\\_1 \\& 50 \\%\\textsuperscript{1} & real & $\\checkmark$ & "
        "\\underline{0.5000 $\\pm$ 0.0100} & $-$0.2500 \\\\",
        "B & real & -- & \\textbf{0.7500} & undefined \\\\",
        "\\bottomrule",
        "\\end{tabular}}",
        "\\par\\medskip\\begin{minipage}{\\linewidth}\\footnotesize",
        "x \\textless{} 5 \\%\\par",
        "[1] n\\par",
        "\\end{minipage}",
    ]
    assert "\\caption{Maps \\& more}" in made  # LaTeX numbers it


@pytest.mark.parametrize("name", ["50 %", "a_b", "R&D", "#1", "$x$", "{y}", "~z", "^w", "\\v"])
def test_latex_escapes_what_would_not_compile(name: str):
    """Every letter that TeX takes for itself. Catches one that was forgotten: braces would not
    balance, or a percent sign would swallow the rest of the row.
    """
    line = next(part for part in latex(table(block(row(name, 0.5)))).splitlines() if "real" in part)
    escapes = r"\\(?:textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\\\\$"
    assert not re.search(r"[%$#_{}~^\\]|&(?! )", re.sub(escapes, "", line))
    assert line.count(" & ") == 3


def test_csv_has_all_digits_all_columns_and_deviations_beside():
    """Read back with the standard library. Catches a CSV that is as rounded as the page, and one
    that loses the columns which the page leaves out.
    """
    columns = (AUC, Column(key="n", title="n", higher=None, shown=False))
    first = Row(
        name="a, b",
        group="g",
        status="real",
        cells={"auc": Cell(0.123456789, 0.01), "n": 7.0},
        notes=("one", "two"),
    )
    second = Row(name="c", status="real", cells={"auc": Cell(0.5, None), "n": float("nan")})
    made = table(block(first, second, columns=columns))
    rows = list(csv.DictReader(io.StringIO(csv_of(made))))
    assert rows[0] == {
        "block": "",
        "method": "a, b",
        "group": "g",
        "status": "real",
        "auc": "0.123456789",
        "auc_sd": "0.01",
        "n": "7",
        "marks": "second auc",
        "notes": "one | two",
    }
    assert (rows[1]["auc_sd"], rows[1]["n"], rows[1]["marks"]) == ("", "", "best auc")
    assert "| n |" not in markdown(made)


def test_html_is_escaped_and_says_what_is_best():
    """Catches a method's name that becomes part of the page."""
    made = html(table(block(row("<script>", 0.9), row("b", 0.8))))
    assert "<script>" not in made
    assert "&lt;script&gt;" in made
    assert '<td class="best">0.9000</td>' in made
    assert '<td class="second">0.8000</td>' in made


def test_html_puts_groups_above_their_columns():
    """Two groups of two and one column, and a column without one. Catches titles that stand above
    other columns than theirs.
    """
    columns = (
        Column(key="a", title="A", group="first"),
        Column(key="b", title="B", group="first"),
        Column(key="c", title="C"),
        Column(key="d", title="D", group="second"),
    )
    read = ReadPage(html(table(block(row("m", 0.5), columns=columns))))
    assert not read.faults
    assert read.tables[0][0] == ["Method", "Status", "first", "first", "", "second"]
    assert read.tables[0][1] == ["A", "B", "C", "D"]
