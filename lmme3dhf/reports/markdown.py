"""The demo's page: its figures, its pictures, and what they mean."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.escaping import markdown_text

_PAGE = """\
# LMME3DHF demo

Three stages trained on {{ s.test.train_videos }} synthetic videos and tested on {{ s.test.videos }}
videos of {{ s.test.latents }} faces that no stage has seen. The numbers show that the chain works;
they say nothing about real faces.

| | value | to compare with |
|---|---|---|
{% for name in aspects -%}
| {{ name }}: SRCC / PLCC / KRCC | **{{ s[name].srcc | f3 }}** / {{ s[name].plcc | f3 }} / \
{{ s[name].krcc | f3 }} | noise ceiling {{ s[name].ceiling | f3 }} (SRCC) |
{% endfor -%}
| level accuracy | **{{ s.level.accuracy | f3 }}** | most frequent level \
{{ s.level.majority | f3 }} |
| distortion accuracy (mean Jaccard) | **{{ s.distortion.accuracy | f3 }}** | majority answer \
{{ s.distortion.majority | f3 }} |
| saliency CC | **{{ s.saliency.cc | f3 }}** | mean training map {{ s.saliency.mean_map_cc | f3 }} |
| saliency AUC | **{{ s.saliency.auc | f3 }}** | mean training map \
{{ s.saliency.mean_map_auc | f3 }} |
| saliency SIM / KLD / NSS | {{ s.saliency.sim | f3 }} / {{ s.saliency.kld | f3 }} / \
{{ s.saliency.nss | f3 }} | |

The whole job took {{ s.seconds | round | int }} s with at most {{ s.peak_rss_mb | round | int }} MB
of memory. {{ s.saliency.n }} test videos have marks; {{ s.saliency.skipped }} without any are
skipped for the map metrics.
{%- if s.saliency.not_looked_at is defined %} Left out, as no marker looked at them: \
{{ s.saliency.not_looked_at | join(", ") | text }}.
{%- endif %}

## Scores

![predicted score against MOS]({{ pictures.scatter }})

## Distortions

![recall of each category]({{ pictures.recall }})

## Saliency

![marked and predicted maps]({{ pictures.saliency }})

## Training

![loss of each stage]({{ pictures.losses }})
{% if clips %}
## Scored clips

These are not from the renderer; the demo model has never seen anything like them.

| file |{% for name in aspects %} {{ name }} |{% endfor %} distortions | reason |
|---|{% for name in aspects %}---|{% endfor %}---|---|
{% for clip in clips -%}
| {{ clip.file | text }} |{% for name in aspects %} {{ clip[name] }} |{% endfor %} \
{{ clip.distortions | text }} | {{ clip.reason | text }} |
{% endfor -%}
{% endif -%}
"""


def demo_report(
    summary: dict[str, Any],
    pictures: dict[str, str],
    clips: list[dict[str, str]],
    aspects: Sequence[str] = tuple(GEN3DHF),
) -> str:
    """The page as Markdown.

    Args:
        summary: What `summary.json` holds.
        pictures: Name -> path of a picture, relative to the page.
        clips: Rows of the scored clips' table.
        aspects: Names of what was rated.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["f3"] = lambda x: "undefined" if x is None or x != x else f"{x:.3f}"
    environment.filters["text"] = markdown_text
    return environment.from_string(_PAGE).render(
        s=summary, pictures=pictures, clips=clips, aspects=aspects
    )
