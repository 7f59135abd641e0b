"""The verb that serves the page to try: app."""

import math
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf.cli.options import add_scorer_arguments, model_of, scorer_of, views_of
from lmme3dhf.config import Config
from lmme3dhf.errors import UserError


def app_parser() -> ArgumentParser:
    """Options of `app`."""
    parser = ArgumentParser(description="A page to try the metric in, on this machine alone.")
    add = parser.add_argument
    add("--model", required=True, help="folder (or hub id) of a merged model")
    add("--port", type=int, default=7860, help="of the page; 0 takes a free one")
    add("--max_upload_mb", type=float, default=200, help="largest file")
    add("--max_seconds", type=float, default=120, help="longest clip")
    add("--examples", type=Path, help="folder of clips to choose from (default: none)")
    add_scorer_arguments(parser)
    return parser


def app(args: Namespace, config: Config | None) -> int:
    """Runs `app`; returns the exit status."""
    from lmme3dhf.app.page import example_clips, free_port, require_gradio, serve

    # What can go wrong goes wrong before the model is loaded.
    require_gradio()
    if not (0 < args.max_upload_mb < math.inf and 0 < args.max_seconds < math.inf):
        raise UserError("--max_upload_mb and --max_seconds are finite limits above 0")
    views_of(args)
    examples = example_clips(args.examples)
    port = free_port(args.port)
    print(f"loading {args.model} ...", flush=True)
    scorer = scorer_of(args, model_of(args))
    print("starting the page ...", flush=True)
    serve(
        scorer,
        model_name=str(args.model),
        port=port,
        max_upload_mb=args.max_upload_mb,
        max_seconds=args.max_seconds,
        examples=examples,
    )
    return 0
