"""A quality metric for AI-generated 3D human faces: train it, score with it, check it.

Exit status: 0 all good, 1 wrong input or a run that cannot go on, 2 wrong arguments, 3 some files
could not be scored, or some videos not labelled, 130 stopped with Ctrl-C. Heavy libraries are
imported inside the verbs.
"""

import os
import sys
import warnings

from jsonargparse import ArgumentParser

from lmme3dhf import distributed
from lmme3dhf.cli import data, evaluation, scoring, training
from lmme3dhf.cli.options import Verb
from lmme3dhf.config import config_from
from lmme3dhf.errors import UserError, told

VERBS: dict[str, Verb] = {
    "demo": (training.demo_parser, training.demo),
    "data": (data.data_parser, data.data),
    "train": (training.train_parser, training.train),
    "merge": (training.merge_parser, training.merge),
    "predict": (scoring.predict_parser, scoring.predict),
    "evaluate": (evaluation.evaluate_parser, evaluation.evaluate),
    "score": (scoring.score_parser, scoring.score),
    "report": (evaluation.report_parser, evaluation.report),
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


def _quiet_libraries() -> None:
    """Our verbs tell what happens; the libraries' own bars and notices would bury it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
