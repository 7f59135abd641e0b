"""The verbs that train: demo, train, merge."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf import distributed
from lmme3dhf.cli.options import CONFIGS, add_verify_argument, use_threads
from lmme3dhf.config import Config, add_config


def demo_parser() -> ArgumentParser:
    """Options of `demo`."""
    parser = ArgumentParser(description="The whole chain on synthetic data; see configs/demo.yaml.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the job")
    parser.add_argument("--clips", type=Path, help="folder of clips to score at the end")
    demo = CONFIGS / "demo.yaml"
    if demo.exists():
        parser.default_config_files = [str(demo)]
    add_config(parser)
    return parser


def demo(args: Namespace, config: Config) -> int:
    """Runs `demo`; returns the exit status."""
    use_threads(config)
    from lmme3dhf.pipeline.demo import run_demo

    summary = run_demo(config, args.out, args.clips)
    for dimension in ("quality", "authenticity"):
        figures = summary[dimension]
        print(f"{dimension}: SRCC {figures['srcc']:.3f} (noise ceiling {figures['ceiling']:.3f})")
    print(f"report: {args.out / 'report.md'}")
    return 0


def train_parser() -> ArgumentParser:
    """Options of `train`."""
    parser = ArgumentParser(description="Train one stage; the same command goes on after a stop.")
    parser.add_argument("stage", choices=("text", "score", "saliency"), help="stage 1, 2 or 3")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    add_config(parser)
    return parser


def train(args: Namespace, config: Config) -> int:
    """Runs `train`; returns the exit status."""
    use_threads(config)
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


def merge_parser() -> ArgumentParser:
    """Options of `merge`."""
    parser = ArgumentParser(description="Make one loadable folder of a finished run and verify.")
    parser.add_argument("run", type=Path, help="run folder of any stage")
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN/merged)")
    parser.add_argument(
        "--form",
        choices=("auto", "merged", "adapter"),
        default="auto",
        help="merged: the adapter is folded into the weights; adapter: it is kept beside them, "
        "exactly; auto: folded in where that changes no more than it may",
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="FOLDER",
        help="where the model that was trained on is now (default: where it was)",
    )
    add_verify_argument(parser)
    parser.add_argument("--push_to", metavar="USER/NAME", help="publish it there, privately, too")
    return parser


def merge(args: Namespace, config: Config | None) -> int:
    """Runs `merge`; returns the exit status."""
    from lmme3dhf.models.card import merge_summary
    from lmme3dhf.stages.run import merge_run

    report = merge_run(args.run, args.out, args.form, base=args.base, verify=args.verify)
    done = "was merged before" if report["already"] else "merged"
    print(f"{report['folder']}: {done}", *merge_summary(report), sep="\n  ")
    if args.push_to:
        from lmme3dhf.models.hub import push_to_hub

        print(push_to_hub(report["folder"], args.push_to))
    return 0
