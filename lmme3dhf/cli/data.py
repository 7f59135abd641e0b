"""The verb data and its actions."""

from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf import distributed
from lmme3dhf.cli.options import ALLOW_OUTSIDE, SOME_FILES_FAILED, Verb, use_threads
from lmme3dhf.config import Config, add_config

ASPECTS = "YAML of what is rated (default: aspects.yaml of the data set, else Gen3DHF's two)"


def data_parser() -> ArgumentParser:
    """Options of `data`."""
    return ArgumentParser(description="Everything about the data set Gen3DHF, or one like it.")


def data(args: Namespace, config: Config | None) -> int:
    """Runs `data`; returns the exit status."""
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
        "--verify_store",
        type=bool,
        default=False,
        help="check every stored tensor, renew damaged ones",
    )
    add_config(parser)
    return parser


def _features(args: Namespace, config: Config) -> int:
    use_threads(config)
    distributed.start()
    from lmme3dhf.stages.prepare import fill_stores

    fill_stores(config, verify=args.verify_store)
    return 0


def _labels_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Make a data set from raw annotations and clips.")
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder of the clips, named seedNNNN")
    add("--out", type=Path, required=True, help="folder of the data set")
    add("--aspects", type=Path, help=ASPECTS)
    add("--ratings", type=Path, help="CSV subject,video,dimension,rating, or one column a subject")
    add("--mos", type=Path, help="in place of ratings: MOS.json of the release")
    add("--marks", type=Path, help="folder MARKER/VIDEO.png of marked strips, or CSV/JSON points")
    add("--mark_colour", default="red", help="red, green, blue, cyan, magenta or yellow")
    add("--mark_shape", default="dot", help="dot (filled) or ring (closed, none touching another)")
    add("--other_marks", default="error", help="error or ignore: strips with anything else on them")
    add("--strips", type=Path, help="folder of unmarked strips (default: cut from the clips)")
    add("--remarks", type=Path, help="CSV marker,video,remark")
    add("--rules", type=Path, help="YAML with more phrases for the remarks")
    add("--distortions", type=Path, help="in place of remarks: distortion_label.json")
    add("--split", type=Path, help="JSON of the parts (default: drawn, grouped by latent)")
    add("--eval_share", type=float, default=0.20, help="of the videos, where the split is drawn")
    add("--val_share", type=float, default=0.05, help="of the videos; 0 for no val part")
    add("--seed", type=int, default=42, help="of the drawn split")
    add("--rule", default="zscore", help="zscore (Eq. 1-3) or mle (ITU-T P.910)")
    add("--screening", default="bt500", help="of the subjects: bt500, bt500_z, p913 or none")
    add("--edges", default="equal_width", help="of the levels: equal_width (Eq. 4) or equal_count")
    add("--processes", type=int, default=0, help="that look for dots; 0 for one a core")
    return parser


def _labels(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.card import CARD, summary
    from lmme3dhf.data.labels import (
        Sources,
        build_labels,
        clips_in,
        deeper_clips,
        drawn_split,
        split_shares,
    )
    from lmme3dhf.data.splits import read_split
    from lmme3dhf.escaping import visible

    sources = Sources(**{item.name: args[item.name] for item in fields(Sources)})
    shares = None
    if args.split is not None:
        split = read_split(args.split)
    else:
        shares = split_shares(args.eval_share, args.val_share)
        split = drawn_split(clips_in(args.videos), args.eval_share, args.val_share, args.seed)
    report = build_labels(
        args.out,
        sources,
        split,
        rule=args.rule,
        screening=args.screening,
        edges=args.edges,
        processes=args.processes,
        mark_colour=args.mark_colour,
        mark_shape=args.mark_shape,
        other_marks=args.other_marks,
        shares=shares,
    )
    print("\n".join([*map(visible, deeper_clips(args.videos)), *summary(report)]))
    print(f"data card: {args.out / CARD}")
    return SOME_FILES_FAILED if report.undecided else 0


def _strips_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Cut the strips that annotators mark.")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.png")
    return parser


def _strips(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.data.labels import clips_in, deeper_clips
    from lmme3dhf.data.marks import write_strips
    from lmme3dhf.escaping import visible

    clips = clips_in(args.videos)
    cut, failed = write_strips(args.out, clips, args.out)
    for video, reason in failed.items():
        print(visible(f"{video}: no strip: {reason}"))
    for line in deeper_clips(args.videos):
        print(visible(line))
    there = len(clips) - cut - len(failed)
    print(f"{cut} strips cut, {there} were there, {len(failed)} clips give none: {args.out}")
    return SOME_FILES_FAILED if failed else 0


def _check_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Validate a data set, or one of its files.")
    parser.add_argument("path", type=Path, help="folder of a data set, or any file of one")
    parser.add_argument("--video_root", type=Path, help="folder of the clips (default: video_RGB)")
    parser.add_argument("--allow_outside", action="store_true", help=ALLOW_OUTSIDE)
    parser.add_argument("--aspects", type=Path, help=ASPECTS)
    depths = ("views", "headers", "none")
    parser.add_argument(
        "--decode", choices=depths, default="views", help="how much of each clip is read"
    )
    return parser


def _check(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.aspects import read_aspects
    from lmme3dhf.data.check import check

    report = check(
        args.path,
        video_root=args.video_root,
        decode=args.decode,
        allow_outside=args.allow_outside,
        aspects=args.aspects and read_aspects(args.aspects),
    )
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
    parser.add_argument("--aspects", type=Path, help=ASPECTS)
    return parser


def _stats(args: Namespace, config: Config | None) -> int:
    from lmme3dhf.aspects import read_aspects
    from lmme3dhf.describe import describe

    describe(args.data, args.out, args.aspects and read_aspects(args.aspects))
    print(args.out / "stats.md")
    return 0


DATA_ACTIONS: dict[str, Verb] = {
    "synthesize": (_synthesize_parser, _synthesize),
    "features": (_features_parser, _features),
    "strips": (_strips_parser, _strips),
    "labels": (_labels_parser, _labels),
    "check": (_check_parser, _check),
    "splits": (_splits_parser, _splits),
    "download": (_download_parser, _download),
    "stats": (_stats_parser, _stats),
}
