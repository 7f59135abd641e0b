"""A quality metric for AI-generated 3D human faces: train it, score with it, check it.

Exit status: 0 all good, 1 wrong input or a run that cannot go on, 2 wrong arguments, 3 some files
could not be scored, or some videos not labelled, 130 stopped with Ctrl-C. Heavy libraries are
imported inside the verbs.
"""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf import distributed
from lmme3dhf.config import Config, add_config, config_from
from lmme3dhf.errors import UserError, told

SOME_FILES_FAILED = 3
# In a checkout; an installed package is told with --config and --rows.
_CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Train one stage; the same command goes on after a stop.")
    parser.add_argument("stage", choices=("text", "score", "saliency"), help="stage 1, 2 or 3")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    add_config(parser)
    return parser


def _train(args: Namespace, config: Config) -> int:
    _use_threads(config)
    distributed.start()
    if args.stage == "text":
        from lmme3dhf.stages.text import train_text as train
    elif args.stage == "score":
        from lmme3dhf.stages.score import train_score as train
    else:
        from lmme3dhf.stages.saliency import train_saliency as train
    run = train(config, args.out)
    if distributed.is_main():
        print(run)
    return 0


def _merge_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Fold a finished run into one loadable folder and verify.")
    parser.add_argument("run", type=Path, help="run folder of any stage")
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN/merged)")
    return parser


def _merge(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.stages.run import merge_run

    report = merge_run(args.run, args.out)
    print(
        f"{report['folder']}: {'was merged before' if report['already'] else 'merged'}, relative "
        f"difference to the unmerged model {report['relative_difference']:.2g} on "
        f"{report['samples']} samples (limit {report['limit']:g})"
    )
    return 0


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Predict every clip of one or more lists.")
    parser.add_argument("--model", required=True, help="folder of a merged model")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="lists of clips")
    parser.add_argument("--video_root", type=Path, help="folder of the clips")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file of records")
    add = parser.add_argument
    ways = ("reply", "likelihood", "yes_no", "none")
    add("--ratings", type=bool, default=True, help="rate quality and authenticity")
    add("--scores", type=bool, default=True, help="false: words alone, needs no score head")
    add("--answers", choices=ways, default="likelihood", help="how distortions are answered")
    add("--maps", type=bool, default=True, help="write saliency maps too")
    add("--write_text", type=bool, default=False, help="let the model write its ratings too")
    parser.add_argument("--evaluate", type=bool, default=False, help="then compare with the labels")
    _add_truth_arguments(parser)
    _add_scorer_arguments(parser)
    return parser


def _predict(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.gen3dhf import read_list
    from lmme3dhf.stages.predict import predict

    samples = [s for path in args.data for s in read_list(path, args.video_root, labels="ignore")]
    count = predict(
        _scorer(args),
        samples,
        args.out,
        ratings=args.ratings,
        answers=None if args.answers == "none" else args.answers,
        maps=args.maps,
        write_text=args.write_text,
    )
    if not distributed.is_main():
        return 0
    print(f"{args.out}: {count} records")
    if args.evaluate:
        # The labels are read only now, from the same lists.
        metrics = args.out.with_suffix(".metrics.json")
        return _evaluate(Namespace(**{**args, "predictions": args.out, "out": metrics}), None)
    return 0


def _score_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Score files and folders into one CSV.")
    parser.add_argument("paths", type=Path, nargs="+", help="clips, or folders of clips")
    parser.add_argument("--model", required=True, help="folder of a merged model")
    parser.add_argument("--out", type=Path, required=True, help="CSV file, one row a file")
    parser.add_argument("--maps", type=Path, help="folder for the saliency maps (default: none)")
    _add_scorer_arguments(parser)
    return parser


def _score(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.stages.predict import files_below, score_files

    files = files_below(args.paths)
    good, bad = score_files(_scorer(args), files, args.out, maps=args.maps)
    if not distributed.is_main():
        return 0
    print(f"{args.out}: {good} files scored, {bad} not (their rows say why)")
    return SOME_FILES_FAILED if bad else 0


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Compare predictions with the labels in lists, or run what the tables need."
    )
    parser.add_argument("--predictions", type=Path, help="JSONL of `predict`")
    parser.add_argument("--data", type=Path, nargs="+", help="labelled lists")
    _add_truth_arguments(parser)
    parser.add_argument("--out", type=Path, help="JSON file (default: print only)")
    return parser


def _add_truth_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--train_data", type=Path, nargs="+", help="training lists, for floors")
    parser.add_argument("--saliency_maps", type=Path, help="folder of ground-truth maps")
    parser.add_argument("--fixations", type=Path, help="fixations.json (default: from the maps)")


def _evaluate(args: Namespace, config: Config | None) -> int:
    if args.get("action"):
        return EVALUATE_ACTIONS[args.action][1](args[args.action], config)
    if not args.predictions or not args.data:
        actions = ", ".join(EVALUATE_ACTIONS)
        raise UserError(f"give --predictions FILE and --data LIST, or one of: {actions}")
    import json

    from lmme3dhf.files import without_nan, write_json
    from lmme3dhf.pipeline.evaluation import evaluate_file

    figures = evaluate_file(
        args.predictions,
        args.data,
        train_lists=args.train_data,
        maps=args.saliency_maps,
        fixations=args.fixations,
    )
    if args.out:
        write_json(args.out, figures)
    print(json.dumps(without_nan(figures), indent=1))
    return 0


def _add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the run (made, or gone on)"
    )
    add_config(parser)


def _ablations_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Train the rows of Tables 4 and 5, and of our own.")
    rows = _CONFIGS / "ablations.yaml"
    parser.add_argument("--rows", type=Path, default=rows, help="YAML of the rows")
    parser.add_argument("--only", nargs="+", default=[], help="ids of the rows (default: all)")
    _add_run_arguments(parser)
    return parser


def _ablations(args: Namespace, config: Config) -> int:
    _use_threads(config)
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
    _use_threads(config)
    from lmme3dhf.pipeline.crossval import run_crossval

    print(run_crossval(config, args.out, args.folds, args.only, args.jobs))
    return 0


def _report_parser() -> ArgumentParser:
    parser = ArgumentParser(description="One page with every table and figure of a run.")
    add = parser.add_argument
    add("run", type=Path, help="folder of a run")
    add("--out", type=Path, help="the page (default: RUN/report.html); files go beside it")
    several = {"nargs": "+", "action": "extend", "default": []}
    add("--method", metavar="NAME=PATH", help="scores, answers or a folder of maps", **several)
    add("--status", metavar="NAME=STATUS", help="of a method: retrained or external", **several)
    add("--lower_is_better", metavar="NAME", help="of a method: its scores are turned", **several)
    add("--allow_missing", action="store_true", help="test a method on the videos that it has")
    protocols = ("grouped", "official", "leave-one-generator-out")
    add("--folds", choices=protocols, help="Tables 1 to 3 as means over the run's folds")
    return parser


def _report(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.pipeline.report import write_report

    out = args.out or args.run / "report.html"
    files = write_report(
        args.run,
        out,
        args.method,
        statuses=args.status,
        lower=args.lower_is_better,
        folds=args.folds,
        allow_missing=args.allow_missing,
    )
    print(f"{out}: the page, {out.stat().st_size / 1e6:.1f} MB; tables and figures in {files}")
    return 0


def _data_parser() -> ArgumentParser:
    return ArgumentParser(description="Everything about the data set Gen3DHF, or one like it.")


def _data(args: Namespace, config: Config | None) -> int:
    return DATA_ACTIONS[args.action][1](args[args.action], config)


def _synthesize_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Make a synthetic Gen3DHF: clips, raw annotations, labels.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    add_config(parser)
    return parser


def _synthesize(args: Namespace, config: Config) -> int:
    from lmme3dhf.pipeline.chain import make_data

    make_data(config, args.out)
    print(args.out)
    return 0


def _features_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Compute the frozen features of the lists before training; the stages find "
        "them. Also under accelerate launch."
    )
    parser.add_argument(
        "--verify", type=bool, default=False, help="check every stored tensor, renew damaged ones"
    )
    add_config(parser)
    return parser


def _features(args: Namespace, config: Config) -> int:
    _use_threads(config)
    distributed.start()
    from lmme3dhf.stages.prepare import fill_stores

    fill_stores(config, verify=args.verify)
    return 0


def _labels_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Make a data set from raw annotations and clips.")
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder of the clips, named seedNNNN")
    add("--out", type=Path, required=True, help="folder of the data set")
    add("--ratings", type=Path, help="CSV subject,video,dimension,rating, or one column a subject")
    add("--mos", type=Path, help="in place of ratings: MOS.json of the release")
    add("--marks", type=Path, help="folder MARKER/VIDEO.png of marked strips, or CSV/JSON points")
    add("--strips", type=Path, help="folder of unmarked strips (default: cut from the clips)")
    add("--remarks", type=Path, help="CSV marker,video,remark")
    add("--rules", type=Path, help="YAML with more phrases for the remarks")
    add("--distortions", type=Path, help="in place of remarks: distortion_label.json")
    add("--split", type=Path, help="JSON of the parts (default: drawn, grouped by latent)")
    add("--eval_share", type=float, default=0.20, help="of the latents, where the split is drawn")
    add("--val_share", type=float, default=0.05, help="of the latents; 0 for no val part")
    add("--seed", type=int, default=42, help="of the drawn split")
    add("--rule", default="zscore", help="zscore (Eq. 1-3) or mle (ITU-T P.910)")
    add("--screening", default="bt500", help="of the subjects: bt500, bt500_z, p913 or none")
    add("--edges", default="equal_width", help="of the levels: equal_width (Eq. 4) or equal_count")
    add("--processes", type=int, default=0, help="that look for dots; 0 for one a core")
    return parser


def _labels(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.card import CARD, summary
    from lmme3dhf.data.labels import Sources, build_labels, clips_in, drawn_split
    from lmme3dhf.data.splits import read_split

    names = ("videos", "ratings", "mos", "marks", "strips", "remarks", "rules", "distortions")
    sources = Sources(**{name: args[name] for name in names})
    if args.split is not None:
        split = read_split(args.split)
    else:
        split = drawn_split(clips_in(args.videos), args.eval_share, args.val_share, args.seed)
    report = build_labels(
        args.out,
        sources,
        split,
        rule=args.rule,
        screening=args.screening,
        edges=args.edges,
        processes=args.processes,
    )
    print("\n".join(summary(report)))
    print(f"data card: {args.out / CARD}")
    return SOME_FILES_FAILED if report.undecided else 0


def _check_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Validate a data set, or one of its files.")
    parser.add_argument("path", type=Path, help="folder of a data set, or any file of one")
    parser.add_argument("--video_root", type=Path, help="folder of the clips (default: video_RGB)")
    depths = ("views", "headers", "none")
    parser.add_argument(
        "--decode", choices=depths, default="views", help="how much of each clip is read"
    )
    return parser


def _check(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.check import check

    report = check(args.path, video_root=args.video_root, decode=args.decode)
    print(report.text())
    return 1 if report.errors else 0


def _splits_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Write the protocols' splits as lists of ids with a hash.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--videos", type=Path, help="folder of clips (default: the release's ids)")
    return parser


def _splits(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.labels import clips_in
    from lmme3dhf.data.splits import write_protocols

    written = write_protocols(args.out, None if args.videos is None else clips_in(args.videos))
    print("\n".join(str(path) for path in written))
    return 0


def _download_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Download Gen3DHF, verify and unpack it.")
    add = parser.add_argument
    add("--target_dir", type=Path, default=Path("Gen3DHF"), help="folder to fill")
    add("--dataset", nargs="+", help="image video_RGB saliency_map MOS distortion_label, or some")
    add("--repo_id", default="YyWooo/Gen3DHF", help="on the hub")
    add("--revision", default="main", help="branch, tag or commit")
    add("--keep_archives", action="store_true", help="keep them once unpacked")
    add("--dry_run", action="store_true", help="only list what would be done")
    return parser


def _download(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.download import download

    download(
        args.target_dir,
        args.dataset,
        repo_id=args.repo_id,
        revision=args.revision,
        keep_archives=args.keep_archives,
        dry_run=args.dry_run,
    )
    return 0


def _stats_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Figures, tables and a page about a data set (Section 3).")
    parser.add_argument("data", type=Path, help="folder of a data set, or of lists alone")
    parser.add_argument("--out", type=Path, required=True, help="folder for page and pictures")
    return parser


def _stats(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.describe import describe

    describe(args.data, args.out)
    print(args.out / "stats.md")
    return 0


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(description="The whole chain on synthetic data; see configs/demo.yaml.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the job")
    parser.add_argument("--clips", type=Path, help="folder of clips to score at the end")
    demo = _CONFIGS / "demo.yaml"
    if demo.exists():
        parser.default_config_files = [str(demo)]
    add_config(parser)
    return parser


def _demo(args: Namespace, config: Config) -> int:
    _use_threads(config)
    from lmme3dhf.pipeline.demo import run_demo

    summary = run_demo(config, args.out, args.clips)
    for dimension in ("quality", "authenticity"):
        figures = summary[dimension]
        print(f"{dimension}: SRCC {figures['srcc']:.3f} (noise ceiling {figures['ceiling']:.3f})")
    print(f"report: {args.out / 'report.md'}")
    return 0


def _add_scorer_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    types = ("auto", "float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=types, default="auto", help="of the backbone")
    parser.add_argument("--batch_size", type=int, default=8, help="clips at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode ahead")


def _scorer(args: Namespace) -> Any:
    distributed.start()
    from lmme3dhf.scorer import Scorer
    from lmme3dhf.stages.run import local_model

    return Scorer.from_pretrained(
        local_model(args.model),
        device=args.device,
        dtype=args.dtype,
        batch_size=args.batch_size,
        workers=args.workers,
        # Without ratings nobody reads a score.
        scores=args.get("scores", True) and args.get("ratings", True),
    )


def _use_threads(config: Config) -> None:
    if config.threads:
        # Before torch is imported, so that its thread pools never start larger.
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        # Small models wait for their threads all the time. With the default, threads that wait keep
        # a core busy: as fast on idle cores, five times slower on shared ones.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _quiet_libraries() -> None:
    """Our verbs tell what happens; the libraries' own bars and notices would bury it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


Verb = tuple[Callable[[], ArgumentParser], Callable[[Namespace, Config | None], int]]
VERBS: dict[str, Verb] = {
    "demo": (_demo_parser, _demo),
    "data": (_data_parser, _data),
    "train": (_train_parser, _train),
    "merge": (_merge_parser, _merge),
    "predict": (_predict_parser, _predict),
    "evaluate": (_evaluate_parser, _evaluate),
    "score": (_score_parser, _score),
    "report": (_report_parser, _report),
}


EVALUATE_ACTIONS: dict[str, Verb] = {
    "ablations": (_ablations_parser, _ablations),
    "crossval": (_crossval_parser, _crossval),
}
DATA_ACTIONS: dict[str, Verb] = {
    "synthesize": (_synthesize_parser, _synthesize),
    "features": (_features_parser, _features),
    "labels": (_labels_parser, _labels),
    "check": (_check_parser, _check),
    "splits": (_splits_parser, _splits),
    "download": (_download_parser, _download),
    "stats": (_stats_parser, _stats),
}
# Verbs with actions, and whether one has to be named.
ACTIONS = {"data": (DATA_ACTIONS, True), "evaluate": (EVALUATE_ACTIONS, False)}
# What several processes of a launcher do together.
TOGETHER = ("train", "predict", "score", "data features")


def _files_first(argv: list[str]) -> list[str]:
    """Moves `--config FILE` to just after the verb and its action.

    The parser lets the last word win. The stage scripts give `--model` before the user's options,
    and a file among those may not quietly start the stage from the file's own `model`.
    """
    files: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            files += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word.startswith("--config="):
            files.append(word)
        else:
            rest.append(word)
    actions = ACTIONS[rest[0]][0] if rest and rest[0] in ACTIONS else {}
    words_of_verb = 2 if rest[1:2] and rest[1] in actions else 1
    return [*rest[:words_of_verb], *files, *rest[words_of_verb:]]


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status.

    Args:
        argv: Words of the command line. A setting given as an option wins over every file.
    """
    parser = ArgumentParser(prog="lmme3dhf", description=__doc__.split("\n\n")[0])
    verbs = parser.add_subcommands(dest="verb")
    for name, (make_parser, _) in VERBS.items():
        verb_parser = make_parser()
        verbs.add_subcommand(name, verb_parser)
        if name in ACTIONS:  # jsonargparse takes the second level once the first is in place
            named, required = ACTIONS[name]
            actions = verb_parser.add_subcommands(dest="action", required=required)
            for action, (make_action_parser, _) in named.items():
                actions.add_subcommand(action, make_action_parser())
    parsed = parser.parse_args(_files_first(sys.argv[1:] if argv is None else argv))
    args = parsed[parsed.verb]
    action = args.get("action") if parsed.verb in ACTIONS else None
    words = f"{parsed.verb} {action}" if action else parsed.verb
    told_as = distributed.named(f"lmme3dhf {words}")
    try:
        if distributed.world_size() > 1 and words not in TOGETHER:
            raise UserError(
                "runs in one process; start it without a launcher (together run: "
                f"{', '.join(TOGETHER)})"
            )
        _quiet_libraries()
        instantiated = parser.instantiate(parsed)[parsed.verb]
        if action:
            instantiated = instantiated[action]
        config = config_from(instantiated) if "synthetic" in instantiated else None
        return VERBS[parsed.verb][1](args, config)
    except (UserError, OSError) as error:
        print(f"{told_as}: {told(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{told_as}: stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
