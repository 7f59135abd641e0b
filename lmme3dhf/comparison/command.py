"""The command line of the scripts `evaluate/table1_scores.py` to `table5_lora_ablation.py`."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmme3dhf.comparison.methods import STATUSES, ComparisonError, Method, read_method
from lmme3dhf.comparison.paper import read_paper
from lmme3dhf.comparison.scoring import FITS
from lmme3dhf.comparison.sources import Source, read_source
from lmme3dhf.comparison.tables import table1, table2, table3, table4, table5
from lmme3dhf.errors import UserError, format_error
from lmme3dhf.files import replace_file
from lmme3dhf.metrics.saliency import PRESETS
from lmme3dhf.metrics.vqa import ACCURACIES
from lmme3dhf.reports.tables import Table, csv, latex, markdown

FOLDS = ("grouped", "official", "leave-one-generator-out")
WITH_METHODS = (1, 2, 3)  # tables that foreign methods can stand in


def write_table(table: Table, out: Path) -> list[Path]:
    """Writes a table as Markdown, CSV and LaTeX, each as a whole."""
    written = []
    for suffix, write in ((".md", markdown), (".csv", csv), (".tex", latex)):
        written.append(out / f"{table.name}{suffix}")
        replace_file(written[-1], write(table))
    return written


def write_tables(tables: Iterable[Table], out: Path) -> None:
    """Writes some tables and prints them as Markdown."""
    for table in tables:
        write_table(table, out)
        print(markdown(table))


def table_command(number: int, description: str, argv: list[str] | None = None) -> int:
    """Makes one table from the words of a command line; returns the exit status, 1 for wrong input.

    Args:
        number: Of the table.
        description: What the script does.
        argv: The words; None for those of the process.
    """
    args = _parser(number, description).parse_args(argv)
    try:
        table = _table(number, args)
        write_table(table, args.out)
    except (UserError, OSError) as error:
        print(f"table {number}: {format_error(error)}", file=sys.stderr)
        return 1
    print(markdown(table), end="")
    return 0


def _parser(number: int, description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description)
    add = parser.add_argument
    add("--run", type=Path, help="folder of a run")
    add("--data", type=Path, help="folder of a data set with labels, in place of a run")
    add("--out", type=Path, required=True, help=f"folder for table{number}.md, .csv and .tex")
    add("--part", default="eval", help="part of the data set that is tested")
    add("--paper_numbers", type=Path, help="the printed numbers (default: the repository's)")
    if number in WITH_METHODS:
        what = {1: "CSV or JSONL of scores", 2: "CSV or JSONL of answers", 3: "folder of maps"}
        add("--method", action="append", default=[], metavar="NAME=PATH", help=what[number])
        add(
            "--status",
            action="append",
            default=[],
            metavar="NAME=STATUS",
            help=f"of a method: {' or '.join(STATUSES)} (default)",
        )
        add("--allow_missing", action="store_true", help="test a method on the videos that it has")
        add("--folds", choices=FOLDS, help="mean over the folds of a cross-validation of the run")
    if number == 1:
        add(
            "--lower_is_better",
            action="append",
            default=[],
            metavar="NAME",
            help="of a method: its scores are turned",
        )
        add("--seed", type=int, default=0, help="of the bootstraps")
    if number in (1, 5):
        add("--fit", choices=FITS, default="none", help="curve before PLCC")
    if number in (2, 5):
        add("--accuracy", choices=tuple(ACCURACIES), default="jaccard", help="what is shown so")
    if number in (3, 4):
        add("--preset", choices=tuple(PRESETS), default="mit", help="definitions of the metrics")
    return parser


def _table(number: int, args: Namespace) -> Table:
    paper = read_paper(args.paper_numbers)
    folds = args.folds if number in WITH_METHODS else None
    source = read_source(args.run, args.data, part=args.part, folds=folds)
    if number == 4:
        return table4(source, paper=paper, preset=args.preset)
    if number == 5:
        return table5(source, paper=paper, accuracy=args.accuracy, fit=args.fit)
    options = {"paper": paper, "allow_missing": args.allow_missing}
    if number == 1:
        words = (args.method, args.status, args.lower_is_better)
        methods = read_methods(source, *words)
        return table1(source, methods, fit=args.fit, seed=args.seed, **options)
    methods = read_methods(source, args.method, args.status)
    if number == 2:
        return table2(source, methods, accuracy=args.accuracy, **options)
    return table3(source, methods, preset=args.preset, **options)


def read_methods(
    source: Source, methods: Sequence[str], statuses: Sequence[str] = (), lower: Sequence[str] = ()
) -> list[Method]:
    """Anybody's predictions, as the words of a command line name them.

    Args:
        source: Whose test videos the predictions are matched with.
        methods: `NAME=PATH`.
        statuses: `NAME=STATUS` of some of them; the others are external.
        lower: Names of those whose scores are lower for better videos.

    Raises:
        ComparisonError: Words of another form, a name twice, or predictions that cannot be read.
    """
    known = {video for round_ in source.rounds for video in round_.labels.videos}
    paths = _pairs(methods, "--method")
    status_of = _pairs(statuses, "--status")
    for option, names in (("--status", status_of), ("--lower_is_better", lower)):
        unknown = sorted(set(names) - set(paths))
        if unknown:
            raise ComparisonError(
                f"{option} {unknown[0]!r}: no such --method; given are {', '.join(paths) or 'none'}"
            )
    return [
        read_method(
            name,
            Path(path),
            known,
            status=status_of.get(name, "external"),
            lower_is_better=name in lower,
            aspects=source.aspects,
        )
        for name, path in paths.items()
    ]


def _pairs(words: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not (separator and name.strip() and value.strip()):
            expected = "PATH" if option == "--method" else "STATUS"
            raise ComparisonError(f"{option} {word!r}: expected NAME={expected}")
        if name.strip() in pairs:
            raise ComparisonError(f"{option} {name.strip()!r} is given twice; keep one")
        pairs[name.strip()] = value.strip()
    return pairs
