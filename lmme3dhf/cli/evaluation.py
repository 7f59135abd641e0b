"""The verbs that compare: evaluate and its actions, report."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf.cli.options import CONFIGS, Verb, use_threads
from lmme3dhf.config import Config, add_config
from lmme3dhf.errors import UserError


def evaluate_parser() -> ArgumentParser:
    """Options of `evaluate`."""
    parser = ArgumentParser(
        description="Compare predictions with the labels in lists, or run what the tables need."
    )
    parser.add_argument("--predictions", type=Path, help="JSONL of `predict`")
    parser.add_argument("--data", type=Path, nargs="+", help="labelled lists")
    add_truth_arguments(parser)
    parser.add_argument("--out", type=Path, help="JSON file (default: print only)")
    parser.add_argument("--card", type=Path, help="merged model whose card gets the figures, too")
    return parser


def add_truth_arguments(parser: ArgumentParser) -> None:
    """Where the truth is that predictions are compared with."""
    parser.add_argument("--train_data", type=Path, nargs="+", help="training lists, for floors")
    parser.add_argument("--saliency_maps", type=Path, help="folder of ground-truth maps")
    parser.add_argument("--fixations", type=Path, help="fixations.json (default: from the maps)")


def evaluate(args: Namespace, config: Config | None) -> int:
    """Runs `evaluate`; returns the exit status."""
    if args.get("action"):
        return EVALUATE_ACTIONS[args.action][1](args[args.action], config)
    if not args.predictions or not args.data:
        actions = ", ".join(EVALUATE_ACTIONS)
        raise UserError(f"give --predictions FILE and --data LIST, or one of: {actions}")
    import json

    from lmme3dhf.files import file_state, read_unchanged, without_nan, write_json
    from lmme3dhf.pipeline.evaluation import evaluate_file

    def measured() -> tuple[dict, dict]:
        figures = evaluate_file(
            args.predictions,
            args.data,
            train_lists=args.train_data,
            maps=args.saliency_maps,
            fixations=args.fixations,
        )
        if not args.get("card"):
            return figures, {}
        from lmme3dhf.stages.provenance import facts_of_test

        return figures, facts_of_test(args.predictions, args.data)

    # The hash in a card is that of the predictions that gave the figures.
    before = file_state(args.predictions)
    (figures, facts), _ = read_unchanged(args.predictions, before, measured)
    if args.out:
        write_json(args.out, figures)
    if facts:
        from lmme3dhf.models.card import add_test

        add_test(args.card, {**facts, "figures": figures})
    print(json.dumps(without_nan(figures), indent=1))
    return 0


def _add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the run (made, or gone on)"
    )
    add_config(parser)


def _ablations_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Train the rows of Tables 4 and 5, and of our own.")
    rows = CONFIGS / "ablations.yaml"
    parser.add_argument("--rows", type=Path, default=rows, help="YAML of the rows")
    parser.add_argument("--only", nargs="+", default=[], help="ids of the rows (default: all)")
    _add_run_arguments(parser)
    return parser


def _ablations(args: Namespace, config: Config) -> int:
    use_threads(config)
    from lmme3dhf.comparison.command import write_tables
    from lmme3dhf.comparison.sources import read_source
    from lmme3dhf.comparison.tables import table4, table5
    from lmme3dhf.config import load_ablations
    from lmme3dhf.pipeline.ablations import run_ablations

    written = run_ablations(config, args.out, load_ablations(args.rows), args.only)
    source = read_source(args.out)
    write_tables((table4(source), table5(source)), written.parent)
    print(written)
    return 0


def _crossval_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Train and test the chain on every fold of a protocol.")
    parser.add_argument(
        "--folds",
        choices=("grouped", "official", "leave-one-generator-out"),
        default="grouped",
        help="grouped: five folds that share no face; official: the data set's own split",
    )
    parser.add_argument("--only", type=int, nargs="+", default=[], help="numbers of the folds")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time, each on its own GPU")
    _add_run_arguments(parser)
    return parser


def _crossval(args: Namespace, config: Config) -> int:
    use_threads(config)
    from lmme3dhf.pipeline.crossval import run_crossval

    print(run_crossval(config, args.out, args.folds, args.only, args.jobs))
    return 0


def report_parser() -> ArgumentParser:
    """Options of `report`."""
    parser = ArgumentParser(
        description="One page: with every table and figure of a run, or, of a table of scores, "
        "that compares generators."
    )
    add = parser.add_argument
    add("source", type=Path, help="folder of a run, or a table that `score` wrote")
    add(
        "--out",
        type=Path,
        help="the page (default: RUN/report.html, or TABLE with .html); files go beside it",
    )
    add(
        "--group_by",
        "--group-by",
        metavar="PATTERN",
        help="of a table: where a path names its generator, such as '{generator}_*' or "
        "'{generator}/*' (default: the folder)",
    )
    several = {"nargs": "+", "action": "extend", "default": []}
    add("--method", metavar="NAME=PATH", help="scores, answers or a folder of maps", **several)
    add("--status", metavar="NAME=STATUS", help="of a method: retrained or external", **several)
    add("--lower_is_better", metavar="NAME", help="of a method: its scores are turned", **several)
    add("--allow_missing", action="store_true", help="test a method on the videos that it has")
    protocols = ("grouped", "official", "leave-one-generator-out")
    add("--folds", choices=protocols, help="Tables 1 to 3 as means over the run's folds")
    return parser


def report(args: Namespace, config: Config | None) -> int:
    """Runs `report`; returns the exit status."""
    named_so = args.source.suffix.lower() in (".csv", ".jsonl")
    if args.source.is_file() or (named_so and not args.source.is_dir()):
        out, files = _report_of_scores(args)
    else:
        out, files = _report_of_run(args)
    print(f"{out}: the page, {out.stat().st_size / 1e6:.1f} MB; tables and figures in {files}")
    return 0


def _report_of_run(args: Namespace) -> tuple[Path, Path]:
    """Writes the page of a run; returns it and the folder of its files."""
    if args.group_by is not None:
        raise UserError(
            f"--group_by is for a table of scores, and {args.source} is none; give the .csv or "
            ".jsonl file of `lmme3dhf score`, or leave the option out"
        )
    from lmme3dhf.pipeline.report import write_report

    out = args.out or args.source / "report.html"
    files = write_report(
        args.source,
        out,
        args.method,
        statuses=args.status,
        lower=args.lower_is_better,
        folds=args.folds,
        allow_missing=args.allow_missing,
    )
    return out, files


def _report_of_scores(args: Namespace) -> tuple[Path, Path]:
    """Writes the page that compares generators; returns it and the folder of its files."""
    for option in ("method", "status", "lower_is_better", "allow_missing", "folds"):
        if args[option]:
            raise UserError(
                f"--{option} is for a run, and {args.source} is a table of scores; give the folder "
                "of a run, or leave the option out"
            )
    from lmme3dhf.generators.report import write_comparison

    out = args.out or args.source.with_suffix(".html")
    return out, write_comparison(args.source, out, args.group_by)


def baseline_parser() -> ArgumentParser:
    """Options of `baseline`."""
    parser = ArgumentParser(
        description="Write what a baseline says of a data set's test part, as prediction records."
    )
    parser.add_argument("name", help="training_mean, generator_mean, mean_map, ... or a plugin's")
    parser.add_argument("--data", type=Path, required=True, help="folder of a labelled data set")
    parser.add_argument("--part", default="eval", help="part that is predicted")
    parser.add_argument("--out", type=Path, required=True, help="JSONL; maps go beside it")
    return parser


def baseline(args: Namespace, config: Config | None) -> int:
    """Runs `baseline`; returns the exit status."""
    from lmme3dhf.pipeline.evaluation import write_baseline

    count = write_baseline(args.name, args.data, args.out, args.part)
    print(f"{args.out}: {count} records; a row of the tables with --method NAME={args.out}")
    return 0


EVALUATE_ACTIONS: dict[str, Verb] = {
    "ablations": (_ablations_parser, _ablations),
    "crossval": (_crossval_parser, _crossval),
}
