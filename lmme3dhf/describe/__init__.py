"""Describes a data set: figures, pictures with the table behind each, and one page (paper, Section
3.4).

A folder may hold a whole data set (`datasets/README.md`), the released lists alone, or the download
as it is. What is there is described; what is missing is named on the page with what it would need.
"""

from pathlib import Path

from lmme3dhf.aspects import GEN3DHF, Aspects
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import generator
from lmme3dhf.data.statistics import Figures
from lmme3dhf.describe.contents import chosen_strips, measure, read_contents
from lmme3dhf.describe.inventory import compare_lists, count_parts, coverage, video_table
from lmme3dhf.describe.marks import describe_distortions, describe_marks, describe_strips
from lmme3dhf.describe.output import Output
from lmme3dhf.describe.panel import describe_markers, describe_raters
from lmme3dhf.describe.scores import describe_generators, describe_levels, describe_scores
from lmme3dhf.files import replace_file, write_json
from lmme3dhf.reports.dataset import dataset_page

PAGE, FIGURES = "stats.md", "stats.json"


def describe(root: Path, out: Path, aspects: Aspects | None = None) -> Figures:
    """Writes `stats.md`, `stats.json`, and pictures and tables of a data set.

    Args:
        root: Folder of the data set.
        out: Folder to write to; files of the same names are replaced.
        aspects: What is rated; None for what the data set declares, else Gen3DHF's two.

    Returns:
        The content of `stats.json`.

    Raises:
        DataError: No such folder, nothing in it that can be described, or a file that cannot be
            used. Everything is read before the first file is written.
        AnnotationError: Raw annotations, maps or pictures that cannot be used.
    """
    root = Path(root)
    contents = read_contents(root, aspects)
    if not contents.videos:
        raise DataError(
            f"{root}: nothing of Gen3DHF is here (MOS.json, distortion_label.json, numerical/, "
            "text/, distortion/, fixations.json, saliency_map/, image/ or raw/); give the folder "
            "that holds some of it"
        )
    for video in contents.videos:
        try:
            generator(video)
        except DataError as error:
            raise DataError(f"{root}: {error}; rename it or take it out") from error
    marks = measure(contents)
    strips = chosen_strips(contents)
    # Only synthetic data sets know the truth.
    note = "synthetic data" if (root / "truth.json").exists() else ""
    output = Output(Path(out), note)
    figures: Figures = {
        "name": root.resolve().name,
        "videos": len(contents.videos),
        "sources": contents.sources,
        "coverage": coverage(contents),
        "parts": count_parts(contents, output),
        "lists": compare_lists(contents),
        "scores": describe_scores(contents, output),
        "levels": describe_levels(contents, output),
        "generators": describe_generators(contents, output),
        "distortions": describe_distortions(contents, output),
        "strips": describe_strips(contents, strips, marks, output),
        "marks": describe_marks(contents, marks, output),
        "raters": describe_raters(contents, output),
        "markers": describe_markers(contents, output),
    }
    if contents.aspects != GEN3DHF:
        figures["aspects"] = {
            name: f"{aspect.scale.minimum:g} to {aspect.scale.maximum:g}, {aspect.scale.direction}"
            for name, aspect in contents.aspects.items()
        }
    rows = video_table(contents, marks)
    output.table("videos.csv", "everything that is known of each video", rows)
    figures |= {"left_out": output.left_out, "files": output.files}
    replace_file(output.folder / PAGE, dataset_page(figures))
    write_json(output.folder / FIGURES, figures)
    return figures
