"""The verbs that use a finished model: predict, score."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf import distributed
from lmme3dhf.cli.evaluation import add_truth_arguments, evaluate
from lmme3dhf.cli.options import SOME_FILES_FAILED, add_scorer_arguments, scorer_of
from lmme3dhf.config import Config


def predict_parser() -> ArgumentParser:
    """Options of `predict`."""
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
    add_truth_arguments(parser)
    add_scorer_arguments(parser)
    return parser


def predict(args: Namespace, config: Config | None) -> int:
    """Runs `predict`; returns the exit status."""
    from lmme3dhf.data.gen3dhf import read_list
    from lmme3dhf.stages.predict import predict

    samples = [s for path in args.data for s in read_list(path, args.video_root, labels="ignore")]
    count = predict(
        scorer_of(args),
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
        return evaluate(Namespace(**{**args, "predictions": args.out, "out": metrics}), None)
    return 0


def score_parser() -> ArgumentParser:
    """Options of `score`."""
    parser = ArgumentParser(description="Score files and folders into one CSV.")
    parser.add_argument("paths", type=Path, nargs="+", help="clips, or folders of clips")
    parser.add_argument("--model", required=True, help="folder of a merged model")
    parser.add_argument("--out", type=Path, required=True, help="CSV file, one row a file")
    parser.add_argument("--maps", type=Path, help="folder for the saliency maps (default: none)")
    add_scorer_arguments(parser)
    return parser


def score(args: Namespace, config: Config | None) -> int:
    """Runs `score`; returns the exit status."""
    from lmme3dhf.stages.predict import files_below, score_files

    files = files_below(args.paths)
    good, bad = score_files(scorer_of(args), files, args.out, maps=args.maps)
    if not distributed.is_main():
        return 0
    print(f"{args.out}: {good} files scored, {bad} not (their rows say why)")
    return SOME_FILES_FAILED if bad else 0
