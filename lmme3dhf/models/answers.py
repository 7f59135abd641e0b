"""The distortion answers that a model can give without writing them: all valid lists, how likely
each category is among them, and the tokens of yes and no.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from transformers import PreTrainedTokenizerBase

from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

FAULTS = tuple(category for category in DISTORTIONS if category != NO_DISTORTION)
# Every answer that `distortion_reply` can write: 255 sets of the eight, and the clean one.
VALID_ANSWERS = (
    *(named for n in range(1, len(FAULTS) + 1) for named in combinations(FAULTS, n)),
    (NO_DISTORTION,),
)
# Only those that are one token of the tokenizer are looked at.
SPELLINGS = {
    "yes": ("Yes", " Yes", "yes", " yes", "YES", " YES"),
    "no": ("No", " No", "no", " no", "NO", " NO"),
}


def distortion_log_odds(
    log_probability_R: torch.Tensor, answers: Sequence[tuple[str, ...]] = VALID_ANSWERS
) -> dict[str, float]:
    """How likely each category is to be named, with P(r) the model's own distribution over the
    replies with these answers (`models.likelihood`).

    The marginal of category c is P(c) = sum of P(r) over the replies r that name c, its log-odds
    are log P(c) - log(1 - P(c)). All replies are summed, nothing is pruned.

    These are not the steps of a walk through the list, in which "is c named next?" is asked under
    the categories accepted before: its yes is P(c | earlier decisions), which equals P(c) where the
    earlier decisions are certain. Elsewhere the walk follows one branch and loses what the others
    say about c.

    Args:
        log_probability_R: log P(r) of each of the answers.
        answers: What each reply names.
    """
    odds = {}
    for category in DISTORTIONS:
        names_R = torch.tensor([category in named for named in answers])
        yes, no = log_probability_R[names_R].logsumexp(0), log_probability_R[~names_R].logsumexp(0)
        odds[category] = float(yes - no)
    return odds


def named_categories(log_odds: Mapping[str, float]) -> tuple[str, ...]:
    """The categories that are likelier than not, in vocabulary order; where none is, the likeliest
    alone (of equal ones the last, so that `NO_DISTORTION` wins).

    Always a valid answer: NO_DISTORTION excludes the others, so with more than half of the
    probability it is alone.
    """
    named = tuple(category for category in DISTORTIONS if log_odds[category] > 0)
    return named or (max(reversed(DISTORTIONS), key=log_odds.__getitem__),)


def spelling_tokens(
    tokenizer: PreTrainedTokenizerBase, spellings: Sequence[str]
) -> tuple[int, ...]:
    """Tokens of those spellings of a word that are one token each."""
    encoded = [tokenizer.encode(word, add_special_tokens=False) for word in spellings]
    return tuple(dict.fromkeys(tokens[0] for tokens in encoded if len(tokens) == 1))
