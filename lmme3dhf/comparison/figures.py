"""The figures of the paper's Section 5, and more of the same kind, from a run and from foreign
predictions: each as PNG and SVG with the CSV of the numbers behind it, and an index of them all.

Figures 2, 3, 5 and 6 are those of the data set: `lmme3dhf.describe` draws them, and
`dataset_records` puts them into the same index. What a run lacks is left out with the reason; it
never takes the other figures with it.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmme3dhf.comparison import drawings
from lmme3dhf.comparison.drawings import Drawn
from lmme3dhf.comparison.methods import ComparisonError, Method
from lmme3dhf.comparison.sources import Source, read_source
from lmme3dhf.errors import UserError
from lmme3dhf.files import write_csv, write_json

INDEX = "figures.json"
PROTOCOLS = ("grouped", "official", "leave-one-generator-out")


@dataclass(frozen=True, kw_only=True)
class _OfDataSet:
    """A figure that `describe` draws: the paper's number, its files without suffix (the picture's
    first), and what describe calls it where it leaves it out.
    """

    number: str
    title: str
    caption: str
    files: tuple[str, ...]
    left_out: str


_OF_DATA_SET = {
    "fig2a": _OfDataSet(
        number="2a",
        title="Distribution of the opinion scores",
        caption="Videos per bin of two points; line: a density (Gaussian kernels) scaled to them.",
        files=("fig2a_mos", "fig2a_density"),
        left_out="Opinion scores",
    ),
    "fig2b": _OfDataSet(
        number="2b",
        title="Mean opinion score of each generator",
        caption="With the 95 % interval of the mean (Student's t). A generator's number is its "
        "videos' number divided by 200.",
        files=("fig2b_generators",),
        left_out="Opinion scores",
    ),
    "fig3a": _OfDataSet(
        number="3a",
        title="Videos with each distortion category",
        caption="A video may have several categories.",
        files=("fig3a_distortions",),
        left_out="Distortion categories",
    ),
    "fig3b": _OfDataSet(
        number="3b",
        title="Distortion categories of each generator",
        caption="Number of the generator's videos with the category; colour: their share.",
        files=("fig3b_generators",),
        left_out="Distortion categories",
    ),
    "fig5": _OfDataSet(
        number="5",
        title="Strips with the annotators' dots and their saliency maps",
        caption="The worst video, the best and the quartiles by the mean of both scores, among "
        "those with marks.",
        files=("fig5_strips",),
        left_out="Strips",
    ),
    "fig6": _OfDataSet(
        number="6",
        title="Opinion scores against number and area of the marks",
        caption="The line joins the means of about ten groups of videos, cut at the tenths of what "
        "is on the axis.",
        files=("fig6_marks",),
        left_out="Number and area",
    ),
}


@dataclass(frozen=True, kw_only=True)
class FigureRecord:
    """One figure in the index; paths are relative to the index's folder, with forward slashes.

    Attributes:
        name: Of the figure, and of its files without suffix where they are drawn here.
        title: What it shows.
        number: Of the paper's figure, "2a"; None for one that the paper does not have.
        caption: What a reader needs to know; empty where it was not drawn.
        png, svg: The picture; None where it was not drawn.
        csv: The tables behind it.
        reason: Why it was not drawn; None where it was.
    """

    name: str
    title: str
    number: str | None = None
    caption: str = ""
    png: str | None = None
    svg: str | None = None
    csv: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A figure that can be tried: its title, the paper's number, and what draws it to a path."""

    title: str
    drawing: Callable[[Path], Drawn]
    number: str | None = None


def draw(
    run: Path,
    out: Path,
    methods: Sequence[Method] = (),
    only: Collection[str] | None = None,
) -> list[FigureRecord]:
    """Draws every figure that a run and some foreign methods allow, one after the other.

    Args:
        run: Folder of the run, with our predictions for the test part of its data set.
        out: Folder to write to; files of the same names are replaced.
        methods: Foreign predictions, from `methods.read_method`.
        only: Names of the figures to draw; None for all.

    Returns:
        A record for each figure; those that could not be drawn say why.

    Raises:
        ComparisonError: The run itself cannot be read, two methods have one name, or `only` names a
            figure that is not tried for the run.
        DataError: A list of its data set cannot be read.
        PredictionError: Our predictions cannot be read.
    """
    run, out = Path(run), Path(out)
    records = []
    source = read_source(run)
    names = [method.name for method in (source.rounds[0].ours, *methods)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ComparisonError(f"two methods are called {twice[0]!r}; name one of them otherwise")
    figures = _figures(source, methods)
    unknown = sorted(set(only or ()) - set(figures) - set(_OF_DATA_SET))
    if unknown:
        known = ", ".join([*_OF_DATA_SET, *figures])
        raise ComparisonError(f"no figure {unknown[0]!r}; those of this run are {known}")
    for name, figure in figures.items():
        if only is not None and name not in only:
            continue
        record = FigureRecord(name=name, title=figure.title, number=figure.number)
        try:
            drawn = figure.drawing(out / f"{name}.png")
        except (UserError, FileNotFoundError) as error:
            records.append(replace(record, reason=str(error)))
            continue
        tables = {f"{name}{end}.csv": rows for end, rows in drawn.tables.items()}
        for table, rows in tables.items():
            header = list(dict.fromkeys(key for row in rows for key in row))
            write_csv(out / table, header, [[row.get(key) for key in header] for row in rows])
        files = {"png": f"{name}.png", "svg": f"{name}.svg", "csv": tuple(tables)}
        records.append(replace(record, caption=drawn.caption, **files))
    return records


def _figures(source: Source, methods: Sequence[Method]) -> dict[str, _Figure]:
    """Name -> figure, in the order of the index."""
    ours = source.rounds[0].ours
    everyone = [ours, *methods]
    figures = {
        "fig8": _Figure(
            title="Saliency maps of several methods on the same strips",
            number="8",
            drawing=lambda path: drawings.methods_side_by_side(path, source, everyone),
        ),
        "fig9": _Figure(
            title="Our saliency maps on faces of every generator",
            number="9",
            drawing=lambda path: drawings.faces_of_generators(path, source),
        ),
    }
    scored = [method for method in methods if method.scores]
    for name, method in zip(_file_names("scatter", scored), [ours, *scored], strict=True):
        figures[name] = _Figure(
            title=f"Scores predicted by {method.name} against opinion scores",
            drawing=lambda path, method=method: drawings.scatter(path, source, method),
        )
    figures |= {
        "radar": _Figure(
            title="Methods at a glance",
            drawing=lambda path: drawings.methods_at_a_glance(path, source, everyone),
        ),
        "confusion_levels": _Figure(
            title="Confusion of the quality and authenticity levels",
            drawing=lambda path: drawings.confused_levels(path, source),
        ),
        "confusion_distortions": _Figure(
            title="Confusion of the distortion categories",
            drawing=lambda path: drawings.confused_distortions(path, source),
        ),
        "categories": _Figure(
            title="Precision, recall and F1 of each distortion category",
            drawing=lambda path: drawings.categories(path, source),
        ),
        "generators": _Figure(
            title="Predicted against true mean score of each generator",
            drawing=lambda path: drawings.generators(path, source),
        ),
        "curves": _Figure(
            title="Training loss of each stage",
            drawing=lambda path: drawings.training_curves(path, source),
        ),
        "ablations_table4": _Figure(
            title="Ablations of the saliency decoder (Table 4)",
            drawing=lambda path: drawings.saliency_ablations(path, source),
        ),
        "ablations_table5": _Figure(
            title="Ablations of adapters and regression (Table 5)",
            drawing=lambda path: drawings.score_ablations(path, source),
        ),
    }
    for protocol in PROTOCOLS:
        figures[f"folds_{protocol.replace('-', '_')}"] = _Figure(
            title=f"Cross-validation, {protocol} folds",
            drawing=lambda path, protocol=protocol: drawings.folds(path, source, protocol),
        )
    return figures


def _file_names(prefix: str, methods: Sequence[Method]) -> list[str]:
    """Ours has the prefix alone; no two foreign methods have the same name."""
    names = [prefix]
    for method in methods:
        plain = re.sub("[^a-z0-9]+", "_", method.name.lower()).strip("_")
        name = f"{prefix}_{plain or len(names)}"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def of_data_set(only: Collection[str] | None) -> bool:
    """Whether a figure of the data set is among those asked for."""
    return only is None or not set(only).isdisjoint(_OF_DATA_SET)


def dataset_records(described: Mapping[str, Any], folder: str) -> list[FigureRecord]:
    """The records of Figures 2, 3, 5 and 6, which `describe.describe` has drawn.

    Args:
        described: What `describe` returned.
        folder: Its folder, relative to that of the index.
    """
    records = []
    for name, known in _OF_DATA_SET.items():
        record = FigureRecord(name=name, title=known.title, number=known.number)
        picture, *_ = known.files
        if f"{picture}.png" in described["files"]:
            tables = [f"{file}.csv" for file in known.files]
            record = replace(
                record,
                caption=known.caption,
                png=f"{folder}/{picture}.png",
                svg=f"{folder}/{picture}.svg",
                csv=tuple(f"{folder}/{t}" for t in tables if t in described["files"]),
            )
        else:
            needs = [
                need
                for what, need in described["left_out"].items()
                if what.startswith(known.left_out)
            ]
            reason = f"the data set has no {needs[0]}" if needs else "nothing to draw"
            record = replace(record, reason=reason.replace("`", ""))
        records.append(record)
    return records


def write_index(folder: Path, records: Sequence[FigureRecord]) -> None:
    """Writes `figures.json`: a list of the records, those that were not drawn with the reason."""
    write_json(folder / INDEX, [dataclasses.asdict(record) for record in records])
