"""Pictures of the reports; the only package that draws. Each is written as PNG and as SVG of the
same name.
"""

from lmme3dhf.reports.plots.dataset import (
    category_heat_map,
    distortion_bars,
    generator_bars,
    marked_strips,
    marks_scatter,
    mos_distributions,
    partition_curves,
    split_half_histograms,
    subject_bars,
)
from lmme3dhf.reports.plots.generators import (
    generator_intervals,
    generator_radar,
    level_bars,
    score_distributions,
)
from lmme3dhf.reports.plots.methods import (
    category_scores,
    confusion_matrices,
    fold_dots,
    metric_bars,
    radar,
    recall_bars,
)
from lmme3dhf.reports.plots.saliency import method_maps, overlay, saliency_overlays
from lmme3dhf.reports.plots.scores import generator_means, loss_curves, score_scatter

__all__ = [
    "category_heat_map",
    "category_scores",
    "confusion_matrices",
    "distortion_bars",
    "fold_dots",
    "generator_bars",
    "generator_intervals",
    "generator_means",
    "generator_radar",
    "level_bars",
    "loss_curves",
    "marked_strips",
    "marks_scatter",
    "method_maps",
    "metric_bars",
    "mos_distributions",
    "overlay",
    "partition_curves",
    "radar",
    "recall_bars",
    "saliency_overlays",
    "score_distributions",
    "score_scatter",
    "split_half_histograms",
    "subject_bars",
]
