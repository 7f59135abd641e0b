"""One page that compares generators by the scores of their videos, made from a table of scores.

The page needs nothing else and is at most 5 MB; tables and figures also lie as files beside it.
Nothing on it is of the day it was made: the same table and clips give the same bytes. No model is
loaded, and torch is not needed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmme3dhf.aspects import Scale
from lmme3dhf.assessment import FLAG, on_scale
from lmme3dhf.errors import UserError
from lmme3dhf.escaping import visible
from lmme3dhf.files import replace_file, write_csv
from lmme3dhf.generators.examples import choose, galleries, remarks
from lmme3dhf.generators.names import LONGEST_NAME, generators_of
from lmme3dhf.generators.tables import (
    FAULTS,
    Generator,
    Listed,
    Means,
    Scales,
    differences_table,
    distortion_shares,
    distortions_table,
    failures_table,
    grouped,
    level_shares,
    levels_table,
    means_table,
    short_category,
)
from lmme3dhf.metrics.group_means import (
    FEWEST_VIDEOS,
    LEVEL,
    RESAMPLES,
    Pair,
    compare_groups,
    group_mean,
)
from lmme3dhf.reports.page import (
    Gallery,
    Listing,
    Page,
    Part,
    Picture,
    Pictures,
    Section,
    Text,
    Verbatim,
    render,
)
from lmme3dhf.reports.plots import (
    generator_intervals,
    generator_radar,
    level_bars,
    score_distributions,
)
from lmme3dhf.reports.plots.generators import MOST_IN_ONE, drawn_names
from lmme3dhf.scores import FAILED, OK, ScoreRow, read_scores

LARGEST_PAGE = 5_000_000  # bytes
MOST_GENERATORS = 40  # more make tables that nobody reads, and a page that grows with their square
TABLES, FIGURES = "tables", "figures"  # folders below that of the page's files
_SEED = 0
_PERCENT = f"{100 * LEVEL:.0f} %"
_FEW = 10  # videos, below which intervals are too narrow
_LISTED = 200  # files that the page names; the CSV has all
_REMARKS = ("outside_training", "notes")  # columns
_SPARE = 20_000  # bytes of the page that the pictures leave free


@dataclass(frozen=True)
class Compared:
    """What is known of all generators.

    Attributes:
        rows: Those of the table.
        scales: Aspect -> scale, as in the table.
        names: Generator of each row; None for none.
        generators: In the order of the page.
        means: Aspect -> generator -> mean.
        pairs: Aspect -> pairs of generators.
    """

    rows: Sequence[ScoreRow]
    scales: Scales
    names: list[str | None]
    generators: Sequence[Generator]
    means: Means
    pairs: Mapping[str, Sequence[Pair]]


def write_comparison(table: Path, out: Path, group_by: str | None = None) -> Path:
    """Writes the page, and the tables and figures into a folder beside it (`report_files` for
    `report.html`); the page comes last and as a whole.

    Args:
        table: A table of scores, CSV or JSONL.
        out: The page.
        group_by: Pattern that tells the generator from a path (`names.generators_of`); None for the
            folder.

    Returns:
        Folder of the tables and figures.

    Raises:
        ScoreError: A table that cannot be read.
        PatternError: A pattern that cannot be used, or that no file matches.
        UserError: No row has scores, there are too many generators, or `out` is a folder or the
            table itself.
    """
    table, out = Path(table), Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the file to write, such as {out / 'report.html'}")
    if out.suffix.lower() in (".csv", ".jsonl") or out.resolve() == table.resolve():
        raise UserError(
            f"{out} is the name of a table; give a page to write, such as "
            f"{table.with_suffix('.html')}"
        )
    compared = compare(read_scores(table), group_by, str(table))
    files = out.with_name(f"{out.stem}_files")
    tables = _tables(compared)
    for name, listed in tables.items():
        write_csv(files / TABLES / f"{name}.csv", listed.header, listed.rows)
    print("report: figures", flush=True)
    figures, renamed = _figures(compared, files / FIGURES)

    def page(shown: Sequence[Gallery]) -> str:
        lead = _lead(compared, table.name, group_by)
        sections = _sections(compared, tables, figures, renamed, shown, files.name)
        title = f"LMME3DHF: generators in {visible(table.name, LONGEST_NAME)}"
        return render(Page(title=title, lead=lead, sections=sections))

    print("report: best and worst videos", flush=True)
    spare = LARGEST_PAGE - _SPARE - len(page(()).encode("utf-8"))
    shown_as = {row.file: g.shown for g in compared.generators for row in g.rows}
    chosen = choose(compared.generators, list(compared.scales))
    videos = galleries(chosen, shown_as, table.parent, spare)
    replace_file(out, page(videos))
    return files


def compare(rows: Sequence[ScoreRow], group_by: str | None, where: str) -> Compared:
    """Groups the rows by generator, and takes means and tests.

    Args:
        rows: Those of a table.
        group_by: As of `write_comparison`.
        where: The table, for sentences.

    Raises:
        PatternError: As `write_comparison`.
        UserError: Likewise.
    """
    if not any(row.status == OK for row in rows):
        raise UserError(
            f"{where}: none of its {len(rows)} rows has scores; score some videos first, with "
            "`lmme3dhf score`"
        )
    scales = _scales(rows, where)
    names = generators_of([row.file for row in rows], group_by)
    generators = grouped(rows, names, scales)
    if len(generators) > MOST_GENERATORS:
        found = ", ".join(repr(generator.name) for generator in generators[:3])
        raise UserError(
            f"{where}: {len(generators)} generators ({found}, ...), and one page compares at most "
            f"{MOST_GENERATORS}; give a --group-by that takes more files together"
        )
    if not any(generator.rows for generator in generators):
        raise UserError(
            f"{where}: no file that --group-by {group_by!r} matches has scores; see the column "
            "reason, or match other files"
        )
    means, pairs = {}, {}
    for aspect in scales:
        scores = {g.name: g.scores(aspect) for g in generators}
        # Each from the same seed: a generator's interval does not depend on the others.
        means[aspect] = {
            name: group_mean(score_N, np.random.default_rng(_SEED))
            for name, score_N in scores.items()
        }
        pairs[aspect] = compare_groups(scores)
    return Compared(rows, scales, names, generators, means, pairs)


def _scales(rows: Sequence[ScoreRow], where: str) -> dict[str, Scale]:
    """The aspects of a table, which all of its rows have."""
    found = [{n: r.scale for n, r in row.ratings.items()} for row in rows if row.status == OK]
    for scales in found:
        if scales != found[0]:
            raise UserError(
                f"{where}: rows of {', '.join(found[0])} and of {', '.join(scales)}, or of other "
                "scales; a page compares rows of the same aspects: make one of each table"
            )
    return found[0]


def _tables(compared: Compared) -> dict[str, Listed]:
    """Name of its file -> table."""
    generators = compared.generators
    tables = {"means": means_table(generators, compared.means, compared.scales)}
    for aspect, scale in compared.scales.items():
        pairs = compared.pairs[aspect]
        tables[f"differences_{aspect}"] = differences_table(aspect, scale, generators, pairs)
    if any(scale.levels for scale in compared.scales.values()):
        tables["levels"] = levels_table(generators, compared.scales)
    tables["distortions"] = distortions_table(generators)
    tables["failures"] = failures_table(compared.rows, compared.names)
    return tables


def _figures(compared: Compared, folder: Path) -> tuple[dict[str, Picture], dict[str, str]]:
    """Draws the pictures: name -> picture, and what generators are called in them where that is not
    their name.
    """
    generators = compared.generators
    called = dict(
        zip((g.name for g in generators), drawn_names([g.shown for g in generators]), strict=True)
    )
    made = {}

    def add(name: str, title: str, caption: str, *, wide: bool = False) -> None:
        png = folder / f"{name}.png"
        svg = png.with_suffix(".svg")
        made[name] = Picture(name=name, title=title, caption=caption, png=png, svg=svg, wide=wide)

    for aspect, scale in compared.scales.items():
        means, name = compared.means[aspect], f"means-{aspect}"
        found = [(called[g.name], means[g.name]) for g in generators]
        rows = [(label, *on_scale((m.mean, m.low, m.high), scale)) for label, m in found]
        generator_intervals(folder / f"{name}.png", aspect, rows, scale=scale)
        add(name, f"Mean {aspect}", f"The line is the {_PERCENT} interval of the mean.")
        scores = {called[g.name]: on_scale(g.scores(aspect), scale) for g in generators}
        name, rng = f"scores-{aspect}", np.random.default_rng(_SEED)
        score_distributions(folder / f"{name}.png", aspect, scores, rng, scale=scale)
        add(
            name,
            f"Distribution of {aspect}",
            "A point is a video (at most 150 a generator, drawn at random), the box holds the "
            "middle half with the median; the shape stands from ten videos on.",
        )
        if not scale.levels:
            continue
        # From worst to best.
        words = scale.levels if scale.higher_is_better else scale.levels[::-1]
        shares = {called[g.name]: level_shares(g, aspect, words) for g in generators}
        name = f"levels-{aspect}"
        level_bars(folder / f"{name}.png", aspect, words, shares)
        add(name, f"Levels of {aspect}", "The level word that the model finds most likely.")
    axes = [*compared.scales, *(f"no {short_category(fault)}" for fault in FAULTS)]
    values = {}
    for g in generators:
        shares = distortion_shares(g)
        units = [
            (scale, scale.to_unit(compared.means[aspect][g.name].mean))
            for aspect, scale in compared.scales.items()
        ]
        of_mean = [100 * (unit if scale.higher_is_better else 1 - unit) for scale, unit in units]
        values[called[g.name]] = [*of_mean, *(100 * (1 - shares[fault]) for fault in FAULTS)]
    generator_radar(folder / "radar.png", axes, values)
    add(
        "radar",
        f"{len(axes)} measures at a glance",
        "All from 0 to 100, and further out is better: the mean scores, in per cent of the way "
        "from the worst end of their scale to the best, and for each of the eight distortions the "
        "share of videos of which the model does not name it."
        + " The dashed grey line is the mean of all generators."
        * (len(values) > MOST_IN_ONE),
        wide=len(values) > MOST_IN_ONE,
    )
    renamed = {g.shown: called[g.name] for g in generators if called[g.name] != g.shown}
    return made, renamed


def _lead(compared: Compared, table: str, group_by: str | None) -> tuple[Part, ...]:
    """What was scored with what, and what to beware of."""
    rows, generators = compared.rows, compared.generators
    scored = [row for row in rows if row.status == OK]
    known = sum(len(generator.rows) for generator in generators)
    lead = (
        f"{_counted(known, 'video')} of {_counted(len(generators), 'generator')}, from "
        f"{visible(table, LONGEST_NAME)}"
    )
    if group_by is not None:
        lead += f", grouped by `{visible(group_by, LONGEST_NAME)}`"
    elif len(generators) > 1:
        lead += ", grouped by their folders"
    scales = "; ".join(
        f"{aspect} from {scale.minimum:g} to {scale.maximum:g}, {scale.direction}"
        for aspect, scale in compared.scales.items()
    )
    lead += (
        f". Scores: {scales}. What a regression predicts beyond an end is shown at that end; "
        "ranks, intervals and tests use the raw scores."
    )
    parts: list[Part] = [Text(lead, "banner")]
    flagged = [row for g in generators for row in g.rows if row.outside_training]
    if flagged:
        parts.append(
            Text(
                f"{FLAG} {_counted(len(flagged), 'video')} with a flag: a score far outside those "
                "that the model was trained on says little about the video, but counts in all "
                "means and ranks. The last section names these videos.",
                "warning",
            )
        )
    noted = sum(bool(row.notes) for g in generators for row in g.rows)
    if noted:
        said = f"{_counted(noted, 'video')} with notes (how it was read, how it turns)"
        parts.append(Text(f"{said}; the last section has them.", "warning"))
    failed, unmatched = len(rows) - len(scored), len(scored) - known
    if failed or unmatched:
        left_out = [f"{_counted(failed, 'file')} without scores"] * bool(failed)
        left_out += [
            f"{_counted(unmatched, 'scored file')} that the pattern does not match"
        ] * bool(unmatched)
        parts.append(Text(f"Left out: {', '.join(left_out)}; see the last section.", "warning"))
    models = {(row.model, row.version) for row in scored}
    decoders = {row.decoder for row in scored}
    if len(models) > 1 or len(decoders) > 1:
        parts.append(
            Text(
                f"The scores come from {len(models)} models or versions and {len(decoders)} "
                "decoders. Scores of different models, versions or decoders cannot be compared.",
                "warning",
            )
        )
    few = [generator for generator in generators if len(generator.rows) < _FEW]
    if few and len(generators) > 1:
        parts.append(
            Text(
                f"Fewer than {_FEW} scored videos: {len(few)} of the {len(generators)} generators. "
                "Their intervals are too narrow, and few differences can be found.",
                "warning",
            )
        )
    return tuple(parts)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _sections(
    compared: Compared,
    tables: Mapping[str, Listed],
    figures: Mapping[str, Picture],
    renamed: Mapping[str, str],
    videos: Sequence[Gallery],
    files: str,
) -> tuple[Section, ...]:
    def both(name: str) -> Pictures:
        found = (figures.get(f"{name}-{aspect}") for aspect in compared.scales)
        return Pictures(tuple(figure for figure in found if figure))

    several = len(compared.generators) > 1
    names = [f"{shown} is called {called}" for shown, called in renamed.items()]
    called = (Text(f"In the pictures, {'; '.join(names)}.", "files"),) if names else ()
    tested = _pairs_text(compared) if several else "There is one group, so nothing is compared."
    sections = [
        Section(
            anchor="scores",
            title="Scores",
            parts=(
                tables["means"].sheet,
                *called,
                both("means"),
                both("scores"),
                Text(
                    f"Intervals are percentile intervals of the mean ({_PERCENT}, {RESAMPLES} "
                    "bootstrap resamples of the generator's videos, with a fixed seed). They say "
                    "what another draw of videos would change, not another training of the metric.",
                    "files",
                ),
            ),
        ),
        Section(
            anchor="differences",
            title="Differences between generators",
            parts=(
                Text(tested),
                *((tables[f"differences_{a}"].sheet for a in compared.scales) if several else ()),
            ),
        ),
        Section(anchor="profile", title="Profile", parts=(figures["radar"],)),
        Section(
            anchor="distortions-named",
            title="Distortions",
            parts=(
                Text(
                    "Share of the videos of which the model names the distortion. A video can have "
                    "several; the last column is of those without any."
                ),
                tables["distortions"].sheet,
            ),
        ),
        *(
            Section(anchor="level-words", title="Levels", parts=(t.sheet, both("levels")))
            for name, t in tables.items()
            if name == "levels"
        ),
        Section(
            anchor="videos",
            title="Best and worst videos",
            parts=(
                Text(
                    "Each with its three views, and below them the same in grey with the saliency "
                    "map: from violet to yellow where the model expects people to see distortions. "
                    "The numbers after distortions are the model's probabilities."
                ),
                *videos,
            ),
        ),
        Section(anchor="files", title="Files and settings", parts=_files(compared, tables, files)),
    ]
    return tuple(sections)


def _pairs_text(compared: Compared) -> str:
    pairs = next(iter(compared.pairs.values()))
    tested = sum(pair.p == pair.p for pair in pairs)
    undefined = len(pairs) - tested
    return (
        "Two-sided tests of Mann and Whitney, unpaired: every video counts as drawn on its own, "
        "also where two generators made the same person. The p values are corrected by Holm's "
        f"method over the {tested} tested pairs of each aspect."
        + f" A generator with fewer than {FEWEST_VIDEOS} videos cannot be tested, leaving "
        f"{_counted(undefined, 'pair')} undefined." * bool(undefined)
    )


def _files(compared: Compared, tables: Mapping[str, Listed], files: str) -> tuple[Part, ...]:
    """What stands behind the numbers: model, files without scores or generator, where the CSVs
    are.
    """
    rows = compared.rows
    scored = [row for generator in compared.generators for row in generator.rows]
    used = Counter((row.model, row.decoder, row.version, row.views) for row in scored)
    facts = [
        f"{_counted(count, 'video')}: model {model or 'unknown'}, "
        f"decoder {visible(decoder or 'unknown', 60)}, LMME3DHF "
        f"{visible(version or 'unknown', 60)}"
        + (f", views at {', '.join(f'{place:g}' for place in views)} of a clip" if views else "")
        for (model, decoder, version, views), count in used.most_common(5)
    ]
    contents = Counter(row.content for row in scored if row.content)
    again = sum(count - 1 for count in contents.values())
    if again:
        facts.append(f"Same content as another, counted each: {_counted(again, 'video')}.")
    facts += [
        "The metric was made for turntable videos of generated faces (from -90 to +90 degrees); "
        "for others its numbers mean little.",
        "It is a model: small differences can be its own, not the viewers'. A level or a "
        "distortion is what it finds likely, not what somebody saw.",
    ]
    parts: list[Part] = [Listing(tuple(facts))]
    remarked = [(row, found) for row in scored if (found := remarks(row))]
    if remarked:
        lines = ["\n    ".join([visible(row.file, 200), *found]) for row, found in remarked]
        title = f"Videos with flags or notes: {len(remarked)}"
        parts.append(_folded(title, lines, f"the table's columns {' and '.join(_REMARKS)}"))
    failed = [row for row in rows if row.status == FAILED]
    if failed:
        parts.append(tables["failures"].sheet)
        lines = [f"{visible(r.file, 200)}\n    {visible(r.message or '', 300)}" for r in failed]
        parts.append(_folded(f"Files without scores: {len(failed)}", lines, "failures.csv"))
    else:
        parts.append(Text("Every file has scores."))
    unmatched = [r.file for r, name in zip(rows, compared.names, strict=True) if name is None]
    if unmatched:
        title = f"Files that the pattern does not match, in no group: {len(unmatched)}"
        parts.append(_folded(title, [visible(file, 200) for file in unmatched], ""))
    parts.append(
        Text(f"The tables as CSV and the figures as PNG and SVG lie in `{files}/`.", "files")
    )
    return tuple(parts)


def _folded(title: str, lines: Sequence[str], where: str) -> Verbatim:
    rest = len(lines) - _LISTED
    shown = list(lines[:_LISTED])
    if rest > 0:
        shown.append(f"... and {rest} more" + f", in {where}" * bool(where))
    return Verbatim(title, "\n".join(shown))
