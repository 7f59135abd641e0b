"""One page with everything of a run: tables, figures, what its scores are made of, its settings,
and what it departs from (paper, Section 5).

The page needs nothing else; the tables and figures also lie as files beside it. A part that the run
lacks is said with the command that makes it. Nothing on the page is of the day it was made: the
same run gives the same bytes. No model is loaded.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lmme3dhf.comparison.breakdowns import Leak, identity_table, leak, level_table
from lmme3dhf.comparison.command import read_methods, write_table
from lmme3dhf.comparison.figures import (
    PROTOCOLS,
    FigureRecord,
    dataset_records,
    draw,
    write_index,
)
from lmme3dhf.comparison.floors import CEILING, FLOOR, ORACLE, PERSON
from lmme3dhf.comparison.methods import Method
from lmme3dhf.comparison.paper import PaperTable, read_paper
from lmme3dhf.comparison.sources import Source, read_source
from lmme3dhf.comparison.tables import NOT_RUN, OURS, table1, table2, table3, table4, table5
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator, latent, read_split
from lmme3dhf.departures import DEPARTURES, GAPS
from lmme3dhf.describe import describe
from lmme3dhf.errors import UserError
from lmme3dhf.files import file_hash, replace_file
from lmme3dhf.metrics.saliency import PRESETS
from lmme3dhf.reports.page import (
    Grid,
    Listing,
    Page,
    Part,
    Picture,
    Section,
    Text,
    Verbatim,
    render,
)
from lmme3dhf.reports.tables import Block, Cell, Column, Row, Table, number
from lmme3dhf.vocabulary import DIMENSIONS

SHOWN_PRESETS = ("mit", "lmme3dhf-repo")  # of Table 3; one alone would look like the definition
ABLATIONS = "lmme3dhf evaluate ablations --config RUN/config.yaml --out RUN"
CROSSVAL = "lmme3dhf evaluate crossval --config RUN/config.yaml --out RUN --folds {}"

# Figures that stand beside what they are about; all others have a section of their own.
PLACED = {
    "generators": "identity",
    "curves": "training",
    "ablations_table4": "ablations",
    "ablations_table5": "ablations",
    **{f"folds_{protocol.replace('-', '_')}": "folds" for protocol in PROTOCOLS},
}

# Every row of the tables' floors and ceilings, in a sentence.
BOUNDS = {
    "mean of the training scores": "gives every clip the same score: the errors of a metric that "
    "knows nothing; it has no correlations",
    "mean of the clip's generator": "gives a clip the mean training score of its generator: what a "
    "metric reaches that recognises the generator and nothing else",
    "level oracle": "is told the true level word and gives its mean training score: what five "
    "words can say at most, and what a head that reads the label gets for nothing",
    "other dimension's score": "gives the opinion score of the other dimension: how far quality and "
    "authenticity are one thing",
    "true opinions": "the opinions that were planted in the synthetic clips: what the noise of the "
    "simulated raters leaves to be reached",
    "raters' noise": "what the scatter of the raters leaves to be reached, from panels drawn from "
    "the panel",
    "most frequent training answer": "gives every clip the answer that was most frequent in training",
    "uniform map": "says nothing: chance",
    "centre of each view": "a Gaussian in the middle of each view: where faces are",
    "mean training map": "the mean of the training maps: where distortions usually are",
    "marker against marker": "one marker's map tested against the points of the others; no "
    "ceiling, since a model may know what all markers mark on average",
}

DEFINITIONS = (
    "SRCC, PLCC and KRCC: Spearman's, Pearson's and Kendall's (tau-b) correlation of predicted and "
    "opinion scores. PLCC is raw unless the table says which curve was fitted first; the paper "
    "does not say what it did.",
    "Accuracy of distortion answers: the column says which of three it is. Jaccard: categories "
    "both named and true, divided by those named or true; exact: the named set is the true one; "
    "top-1: the first named category is true. The paper prints one and defines none.",
    "AUC: the chance that a marked pixel has a higher value than an unmarked one (Mann-Whitney, "
    "ties one half). AUC-Judd, Borji and shuffled are in the CSV, in expectation instead of by "
    "random draws.",
    "NSS: mean standardised value at the marked pixels; CC: Pearson's correlation with the map; "
    "SIM: what both maps share; KLD: what the prediction loses of the map, in nat, lower is "
    "better. Test clips without any mark are skipped and counted.",
    "Undefined is never 0: a constant prediction has no correlation, and the table says so.",
)


@dataclass
class _Report:
    """What the sections are made from, and what was found missing on the way.

    Attributes:
        run: Folder of the run, as it was given.
        source: The run's own test.
        paper: The printed tables.
        tables: Name -> table, of those that could be made.
        absent: Name -> why a table could not be made.
        figures: Name -> record.
        pictures: Folder that the figures' paths count from.
        files: Name of the folder beside the page.
        folds: Protocol -> the run's finished folds.
    """

    run: Path
    source: Source
    paper: dict[int, PaperTable]
    files: str
    pictures: Path
    tables: dict[str, Table] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    figures: dict[str, FigureRecord] = field(default_factory=dict)
    folds: dict[str, Source] = field(default_factory=dict)

    def plain(self, text: str) -> str:
        """A text without the folders of this machine: RUN stands for the run's."""
        for folder in (str(self.run.resolved() if False else self.run.resolve()), str(self.run)):
            text = text.replace(folder, "RUN") if folder != "." else text
        return text
