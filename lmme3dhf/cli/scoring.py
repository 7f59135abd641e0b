"""The verbs that use a finished model: predict, score; and verify, before it is used."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf import distributed
from lmme3dhf.cli.evaluation import add_truth_arguments, evaluate
from lmme3dhf.cli.options import (
    ALLOW_OUTSIDE,
    SOME_FILES_FAILED,
    add_scorer_arguments,
    model_of,
    scorer_of,
    views_of,
)
from lmme3dhf.config import Config
from lmme3dhf.escaping import visible

_QUESTIONS = "YAML file of further questions: name -> prompt and candidates, its possible replies"


def predict_parser() -> ArgumentParser:
    """Options of `predict`."""
    parser = ArgumentParser(
        description="Predict every clip of one or more lists. The same command continues where it "
        "was stopped."
    )
    parser.add_argument("--model", required=True, help="folder of a merged model")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="lists of clips")
    parser.add_argument("--video_root", type=Path, help="folder of the clips")
    parser.add_argument("--allow_outside", action="store_true", help=ALLOW_OUTSIDE)
    parser.add_argument("--out", type=Path, required=True, help="JSONL file of records")
    add = parser.add_argument
    ways = ("reply", "likelihood", "yes_no", "none")
    add("--ratings", type=bool, default=True, help="rate what the model was trained for")
    add("--scores", type=bool, default=True, help="false: words alone, needs no score head")
    add("--answers", choices=ways, default="likelihood", help="how distortions are answered")
    add("--questions", type=Path, help=_QUESTIONS)
    add("--maps", type=bool, default=True, help="write saliency maps too")
    add("--write_text", type=bool, default=False, help="let the model write its ratings too")
    parser.add_argument("--evaluate", type=bool, default=False, help="then compare with the labels")
    add_truth_arguments(parser)
    add_scorer_arguments(parser)
    return parser


def predict(args: Namespace, config: Config | None) -> int:
    """Runs `predict`; returns the exit status."""
    from lmme3dhf.assessment import read_questions
    from lmme3dhf.data.gen3dhf import read_list
    from lmme3dhf.scorer import aspects_of_folder
    from lmme3dhf.stages.predict import predict
    from lmme3dhf.stages.table import model_key

    outside = {"labels": "ignore", "allow_outside": args.allow_outside}
    samples = [s for path in args.data for s in read_list(path, args.video_root, **outside)]
    questions = read_questions(args.questions)
    views, model = views_of(args), model_of(args)
    outcome = predict(
        lambda: scorer_of(args, model),
        samples,
        args.out,
        model=model_key(model, args.load),
        aspects=aspects_of_folder(model),
        questions=questions,
        ratings=args.ratings,
        scores=args.scores and args.ratings,
        answers=None if args.answers == "none" else args.answers,
        maps=args.maps,
        write_text=args.write_text,
        views=views,
    )
    if not distributed.is_main():
        return 0
    print(outcome, file=sys.stderr if outcome.failures else sys.stdout)
    if args.evaluate:
        # The labels are read only now, from the same lists.
        metrics = args.out.with_suffix(".metrics.json")
        return evaluate(Namespace(**{**args, "predictions": args.out, "out": metrics}), None)
    return SOME_FILES_FAILED if outcome.failures else 0


def score_parser() -> ArgumentParser:
    """Options of `score`."""
    parser = ArgumentParser(
        description="Score files and folders into a table, a row a file. The same command goes on "
        "where it was stopped; files whose rows stand are not scored again."
    )
    add = parser.add_argument
    add("paths", nargs="+", help="clips, folders of clips, or patterns")
    add("--model", required=True, help="folder of a merged model, or a hub id")
    add("--out", type=Path, required=True, help="CSV file; the record, JSONL, lies beside it")
    maps_help = "folder for the saliency maps (default: NAME_maps beside the table), or none"
    add("--maps", type=Path, help=maps_help)
    add("--questions", type=Path, help=_QUESTIONS)
    add("--fail_fast", type=bool, default=False, help="end at the first file that fails")
    add_scorer_arguments(parser)
    return parser


def score(args: Namespace, config: Config | None) -> int:
    """Runs `score`; returns the exit status."""
    from lmme3dhf.assessment import read_questions
    from lmme3dhf.data.sources import files_below
    from lmme3dhf.scorer import aspects_of_folder
    from lmme3dhf.scores import table_files
    from lmme3dhf.stages.table import maps_beside, model_key, score_files

    table_files(args.out)  # a wrong name ends the command before anything is read
    files = files_below(args.paths)
    maps = None if args.maps == Path("none") else args.maps or maps_beside(args.out)
    questions = read_questions(args.questions)
    views, model = views_of(args), model_of(args)
    tally = score_files(
        lambda: scorer_of(args, model),
        files,
        args.out,
        model=model_key(model, args.load, questions),
        aspects=aspects_of_folder(model),
        questions=questions,
        maps=maps,
        views=views,
        fail_fast=args.fail_fast,
    )
    if not distributed.is_main():
        return 0
    print(f"{args.out}: {tally}")
    return SOME_FILES_FAILED if tally.failed else 0


def verify_parser() -> ArgumentParser:
    """Options of `verify`."""
    parser = ArgumentParser(
        description="Decode clips whole, and name those that cannot be scored; compare model and "
        "run folders with their manifests. Nothing is scored, and no model is needed."
    )
    add = parser.add_argument
    add("paths", nargs="+", help="clips, folders of clips, patterns; folders with a manifest.json")
    add("--out", type=Path, help="CSV file, a row a file")
    add(
        "--timeout",
        type=float,
        default=60.0,
        help="seconds of processor time to decode one file; by the clock ten times as many",
    )
    add("--memory_mb", type=float, default=2048.0, help="MB that decoding a file may take (Linux)")
    return parser


def verify(args: Namespace, config: Config | None) -> int:
    """Runs `verify`; returns the exit status."""
    from lmme3dhf.data.verify import verdicts, write_verdicts
    from lmme3dhf.models.folder import model_damage

    found = []
    limits = {"timeout_s": args.timeout, "memory_mb": args.memory_mb}
    for verdict in verdicts(args.paths, compare=model_damage, **limits):
        found.append(verdict)
        if verdict.reason:
            print(f"{verdict.reason}: {visible(verdict.message)}", flush=True)
    if args.out:
        write_verdicts(args.out, found)
    bad = sum(1 for verdict in found if verdict.reason)
    print(f"{len(found)} looked at: {len(found) - bad} good, {bad} bad")
    return SOME_FILES_FAILED if bad else 0
