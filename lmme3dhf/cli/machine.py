"""The verb doctor: is everything there, does it work, is the machine large enough?"""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lmme3dhf.config import Config


def doctor_parser() -> ArgumentParser:
    """Options of `doctor`."""
    parser = ArgumentParser(
        description="Try what is installed, and tell what is broken with the command that mends "
        "it. Exit status 1 where something is broken that everything needs."
    )
    add = parser.add_argument
    add("--json", type=Path, help="write the findings to this file too")
    add("--model", help="folder of a model to look at")
    add("--offline", action="store_true", help="do not ask the hub")
    return parser


def doctor(args: Namespace, config: Config | None) -> int:
    """Runs `doctor`; returns the exit status."""
    from lmme3dhf.doctor import examine
    from lmme3dhf.files import write_json

    examination = examine(model=args.model, offline=args.offline)
    print(examination.text())
    if args.json:
        write_json(args.json, examination.record())
    return 1 if examination.faults else 0
