"""A quality metric for AI-generated 3D human faces: train it, score with it, check it.

Exit status: 0 all good, 1 wrong input or a run that cannot go on, 2 wrong arguments, 3 some files
could not be scored, or some videos not labelled, 130 stopped with Ctrl-C.

Heavy libraries are imported inside the verbs.
"""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lmme3dhf import __version__, distributed
from lmme3dhf.cli import app, data, evaluation, machine, scoring, training
from lmme3dhf.cli.options import Verb
from lmme3dhf.cli.spelling import UnknownWordError, known_word, options_of, spelled
from lmme3dhf.config import config_from
from lmme3dhf.errors import UserError, format_error

VERBS: dict[str, Verb] = {
    "demo": (training.demo_parser, training.demo),
    "data": (data.data_parser, data.data),
    "train": (training.train_parser, training.train),
    "merge": (training.merge_parser, training.merge),
    "predict": (scoring.predict_parser, scoring.predict),
    "evaluate": (evaluation.evaluate_parser, evaluation.evaluate),
    "baseline": (evaluation.baseline_parser, evaluation.baseline),
    "score": (scoring.score_parser, scoring.score),
    "verify": (scoring.verify_parser, scoring.verify),
    "report": (evaluation.report_parser, evaluation.report),
    "doctor": (machine.doctor_parser, machine.doctor),
    "app": (app.app_parser, app.app),
}


# Verbs with actions, and whether one has to be named.
ACTIONS = {"data": (data.DATA_ACTIONS, True), "evaluate": (evaluation.EVALUATE_ACTIONS, False)}
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

    Raises:
        SystemExit: After --help and --version, and with status 2 for wrong arguments.
    """
    try:
        words = _import_plugins(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"lmme3dhf: {format_error(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    parser, of_words = _parsers()
    if not words:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    parsed = _parsed(words, parser, of_words)
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
        print(f"{told_as}: {format_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{told_as}: stopped; the same command goes on", file=sys.stderr)
        return 130


def _import_plugins(words: Sequence[str]) -> list[str]:
    """Imports each `--plugin MODULE`, also one in the current folder; returns the other words.

    Raises:
        UserError: A module is not named, missing, or raises while it is imported.
    """
    rest: list[str] = []
    left = iter(words)
    for word in left:
        option, equals, module = word.partition("=")
        if option != "--plugin":
            rest.append(word)
            continue
        module = module if equals else next(left, "")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            importlib.import_module(module)
        except Exception as error:  # a module is a program, and may raise anything
            raise UserError(
                f"--plugin {module!r}: cannot be imported ({type(error).__name__}: {error}); give "
                "the name of an installed module, or of a file in this folder without .py"
            ) from error
    return rest


def _parsers() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The whole parser; and that of each verb, and of each verb with an action, by its words."""
    what, status, _ = __doc__.split("\n\n")
    parser = ArgumentParser(
        prog="lmme3dhf",
        description=what,
        epilog=status,
        version=__version__,
        exit_on_error=False,
    )
    parser.add_argument(
        "--plugin",
        metavar="MODULE",
        help="import your module first, which adds heads, losses, stages, readers, metrics or "
        "baselines; may be given several times and anywhere",
    )
    of_words = {"": parser}
    verbs = parser.add_subcommands(dest="verb")
    for verb, (make_parser, _) in VERBS.items():
        of_words[verb] = verb_parser = make_parser()
        verbs.add_subcommand(verb, verb_parser, help=verb_parser.description)
        if verb in ACTIONS:  # jsonargparse takes the second level once the first is in place
            named, required = ACTIONS[verb]
            actions = verb_parser.add_subcommands(dest="action", required=required)
            for action, (make_action_parser, _) in named.items():
                of_words[f"{verb} {action}"] = action_parser = make_action_parser()
                actions.add_subcommand(action, action_parser, help=action_parser.description)
    for each in of_words.values():
        each.exit_on_error = False  # its mistakes are told here, in one sentence
    return parser, of_words


def _parsed(
    words: Sequence[str], parser: ArgumentParser, of_words: dict[str, ArgumentParser]
) -> Namespace:
    """The arguments; wrong ones end with a sentence and status 2."""
    about = ""
    try:
        words = list(words)
        count = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
        if count < len(words):
            about = known_word("verb", words[count], VERBS)
            count += 1
            if about in ACTIONS and words[count:] and not words[count].startswith("-"):
                about += f" {known_word('action', words[count], ACTIONS[about][0])}"
                count += 1
        words = words[:count] + spelled(words[count:], of_words[about])
        return parser.parse_args(_files_first(words))
    except UnknownWordError as error:
        told_ = str(error)
    except UnicodeDecodeError as error:
        told_ = f"--config: a file that is not UTF-8 ({error}); save it as UTF-8"
    except ArgumentError as error:
        told_ = _sentence(str(error), about, of_words[about])
    named = f"lmme3dhf {about}".strip()
    print(f"{named}: {told_} ({named} --help)", file=sys.stderr)
    raise SystemExit(2)


def _sentence(message: str, about: str, parser: ArgumentParser) -> str:
    """What the parser says, on one line, with names as they are typed."""
    known = set(options_of(parser))
    within = re.escape(f"{about.replace(' ', '.')}.")

    def typed(name: re.Match) -> str:
        return f"--{name[1]}" if f"--{name[1]}" in known else name[1]

    line = " ".join(message.split())
    line = re.sub(rf"\b{within}([\w.]+)", typed, line)
    return re.sub(r'^Parser key "([\w.]+)":', lambda name: f"{typed(name)}:", line)


def _quiet_libraries() -> None:
    """Our verbs tell what happens; the libraries' own bars and notices would bury it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
