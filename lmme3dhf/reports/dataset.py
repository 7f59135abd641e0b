"""The page that describes a data set: its figures, its pictures, and what they mean (paper, Section
3.4).
"""

import math
import re
from typing import Any

from jinja2 import Environment, StrictUndefined

from lmme3dhf.escaping import markdown_text

_PAGE = """\
# Data set {{ f.name }}

{{ f.videos }} videos. {% if f.parts -%}
Parts: {% for part, n in f.parts.sizes.items() %}{{ part }} {{ n }}{{ "" if loop.last else ", " }}\
{% endfor %}. {% if f.parts.in_several -%}
**{{ f.parts.in_several }} entries are in a second part as well.** {% endif -%}
{% if "eval_with_latent_in_train" in f.parts -%}
Of the {{ f.parts.sizes.eval }} videos of eval, {{ f.parts.eval_with_latent_in_train }} have a \
latent that train has as well. {% endif -%}
{% endif %}
{% if f.sources %}
Read from: {% for what, where in f.sources.items() %}{{ what }} from `{{ where }}`\
{{ "" if loop.last else ", " }}{% endfor %}.
{% endif %}
| what | videos with it | videos without it | the first without it |
|---|---|---|---|
{% for what, c in f.coverage.items() -%}
| {{ what }} | {{ c.n }} | {{ c.missing }} | {{ c.first | join(", ") if c.n else "" }} |
{% endfor %}
{% if f.left_out -%}
Not described:

| what | what it needs, or why not |
|---|---|
{% for what, needs in f.left_out.items() -%}
| {{ what }} | {{ needs }} |
{% endfor %}
{% endif -%}
{% if f.scores %}
## Scores

![distribution of the opinion scores](fig2a_mos.png)

Videos per bin of two points, and a density (Gaussian kernels, Scott's width) scaled to them; as \
Fig. 2(a) of the paper. Table: [fig2a_mos.csv](fig2a_mos.csv), [fig2a_density.csv]\
(fig2a_density.csv).

| dimension, part | videos | lowest | highest | mean | std | p1 | p5 | p10 | p25 | median | p75 | \
p90 | p95 | p99 | skew |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
{% for dimension, parts in f.scores.summary.items() -%}
{% for part, s in parts.items() -%}
| {{ dimension }}, {{ part }} | {{ s.n }} | {{ s.min | d(4) }} ({{ s.min_video }}) | \
{{ s.max | d(4) }} ({{ s.max_video }}) | {{ s.mean | d(3) }} | {{ s.std | d(3) }} | \
{% for p in s.percentiles.values() %}{{ p | d(2) }} | {% endfor %}{{ s.skew | d(2) }} |
{% endfor -%}
{% endfor %}
{% if f.aspects is defined -%}
Scales: {% for name, scale in f.aspects.items() %}{{ name }} {{ scale }}\
{{ "" if loop.last else "; " }}{% endfor %}. Where they differ, the pictures and the generators' \
means are in percent of the scale. \
{% else -%}
Scores are on the scale 0 to 100. {% endif -%}
The standard deviation (std) divides by n - 1, percentiles (p1 to
p99) are interpolated linearly, the skew is g1 of Fisher and Pearson (population moments).
{% for dimension, parts in f.scores.summary.items() -%}
{{ dimension | capitalize }}: {{ parts.all.skew | skewed }}, the density is \
highest at {{ f.scores.densest_at[dimension] | d(1) }}, {{ parts.all.distinct }} distinct values. \
{% endfor %}
The paper calls the scores of Gen3DHF "slightly right-skewed", with a peak at 55 to 60 and few low
ones; a long tail at the low scores is a left skew. All figures: [scores.csv](scores.csv).
{% if f.scores.between_dimensions %}
| {{ f.scores.summary | join(" against ") }} | SRCC | PLCC | KRCC | videos |
|---|---|---|---|---|
{% for part, c in f.scores.between_dimensions.items() -%}
| {{ part }} | {{ c.srcc | d(4) }} | {{ c.plcc | d(4) }} | {{ c.krcc | d(4) }} | {{ c.n }} |
{% endfor -%}
{% endif -%}
{% endif -%}
{% if f.levels %}
## Levels

{{ "Equal" if f.aspects is defined else "Five equal" }} intervals between the lowest and the \
highest score (Eq. 4), each closed above, the first
closed below as well; fitted to the scores of all videos and of train.
{% for dimension, one in f.levels.items() %}
{% if one.edges -%}
{% set edges = one.edges.values() | first -%}
| {{ dimension }}: edges from |{% for _ in edges %} |{% endfor %}
|---|{% for _ in edges %}---|{% endfor %}
{% for source, edges in one.edges.items() -%}
| {{ "`levels.json`" if source == "levels.json" else source }} |\
{% for edge in edges %} {{ edge | d(6) }} |{% endfor %}
{% endfor %}
{% endif -%}
{% set shown = one.as_listed or one.by_equation_4 -%}
{% if shown -%}
| {{ dimension }}: videos{{ " as listed" if one.as_listed else " by Eq. 4" }} |\
{% for word in shown.counts.all %} {{ word }} |{% endfor %}
|---|{% for word in shown.counts.all %}---|{% endfor %}
{% for part, counts in shown.counts.items() -%}
| {{ part }} |{% for n in counts.values() %} {{ n }} |{% endfor %}
{% endfor -%}
| mean score |{% for word in shown.counts.all %} \
{{ shown.mean_mos[word] | d(1) if word in shown.mean_mos else "" }} |{% endfor %}

{% if shown.majority.accuracy | defined_number -%}
Always "{{ shown.majority.level }}", the most frequent level, is right for \
{{ (100 * shown.majority.accuracy) | d(2) }} % of eval. {% endif -%}
{% if one.as_listed and one.by_equation_4 -%}
{{ one.listed_against_equation_4 }} of {{ one.compared }} listed levels differ from Eq. 4\
{{ ' ("None" aside)' if "None" in shown.counts.all else "" }}. \
{% endif %}
{% endif -%}
{% endfor %}
Table: [levels.csv](levels.csv).
{% endif -%}
{% if f.lists %}
## Lists

{{ f.lists.rows.values() | sum }} rows in {{ f.lists.rows | length }} lists\
{% if "compared" in f.lists %}; {{ f.lists.text_against_numerical }} of {{ f.lists.compared }} \
levels differ between `text/` and `numerical/`{% endif %}; the lists of a part \
{{ "have" if f.lists.same_order else "do **not** have" }} the same videos in the same order. \
{% if "largest_gap_to_mos" in f.lists -%}
The largest gap between a score in `numerical/` and in `MOS.json` is \
{{ "%.2g" | format(f.lists.largest_gap_to_mos) }}. {% endif -%}
{% if f.lists.unnamed %}Levels called "None" (we read them as "bad"): \
{% for u in f.lists.unnamed %}{{ u.dimension }} of {{ u.video }} ({{ u.part }})\
{{ "" if loop.last else ", " }}{% endfor %}.{% else %}No level is called "None".{% endif %}
{% endif -%}
{% if f.generators %}
## Generators

![mean score of each generator](fig2b_generators.png)

Mean scores with the 95 % interval of the mean (Student's t over the generator's videos); as Fig.
2(b). A generator's number is its videos' number divided by 200, rounded down; the release does not
name the generators.
Table: [fig2b_generators.csv](fig2b_generators.csv).

{% set dimensions = f.scores.summary | list -%}
{% set dealt = f.generators.dealt_out -%}
| generator | videos |{% for d in dimensions %} {{ d }}: mean / std | interval |{% endfor %}\
{% if dimensions | length == 2 %} {{ dimensions | join(" - ") }} |{% endif %}\
{% for part in dealt.counts %} {{ part }} |{% endfor %}
|---|---|{% for d in dimensions %}---|---|{% endfor %}{% if dimensions | length == 2 %}---|\
{% endif %}{% for part in dealt.counts %}---|{% endfor %}
{% for row in f.generators.rows -%}
| {{ row.generator }} | {{ row.videos }} |{% for d in dimensions %} {{ row[d].mean | d(2) }} / \
{{ row[d].std | d(2) }} | {{ row[d].low | d(2) }} to {{ row[d].high | d(2) }} |{% endfor %}\
{% if dimensions | length == 2 %} {{ row.difference | signed }} |{% endif %}\
{% for counts in dealt.counts.values() %} {{ counts[row.generator | string] }} |{% endfor %}
{% endfor %}
{% if dealt.p | defined_number -%}
Are the parts drawn evenly from the generators? Pearson's test of independence: chi-squared \
{{ dealt.chi2 | d(2) }} with {{ dealt.freedom }} degrees of freedom, p {{ dealt.p | p }} \
(a small p means unevenly). {% endif %}
{% if f.generators.floor.values() | select | list %}
**Floor.** A predictor that knows nothing but the generator, and says its mean score in train,
reaches on eval:

| dimension | SRCC | PLCC | KRCC | videos |
|---|---|---|---|---|
{% for d, c in f.generators.floor.items() if c -%}
| {{ d }} | {{ c.srcc | d(3) }} | {{ c.plcc | d(3) }} | {{ c.krcc | d(3) }} | {{ c.n }} |
{% endfor -%}
{% endif -%}
{% if f.generators.partition -%}
{% set part = f.generators.partition %}
**Is number / {{ part.period }} the generator?** Blocks of {{ part.period }} numbers that begin at \
{{ part.best.offset }} explain the most: eta squared \
{% for d, shares in part.eta2.items() %}{{ d }} {{ shares[part.best.offset] | d(3) }}, {% endfor %}\
together {{ part.best.eta2 | d(3) }}; those that begin at {{ part.worst.offset }} explain the \
least, together {{ part.worst.eta2 | d(3) }}. The number modulo 10 explains \
{% for d, share in part.modulo_10.items() %}{{ share | d(4) }} ({{ d }})\
{{ "" if loop.last else ", " }}{% endfor %}.

![explained variance against the beginning of the blocks](partition.png)

Table: [partition.csv](partition.csv). Student's t of the 100 videos before a number against the 100
from it on:

| number |{% for name in part.steps[0] if name != "at" %} \
{{ dimensions | join(" - ") if name == "difference" else name }} |{% endfor %}
|---|{% for name in part.steps[0] if name != "at" %}---|{% endfor %}
{% for step in part.steps -%}
| {{ step.at }} |{% for name, t in step.items() if name != "at" %} {{ t | d(2) }} |{% endfor %}
{% endfor -%}
{% endif %}
**Latents.** {% for d, one in f.generators.latents.items() -%}
{% if one.p | defined_number -%}
Within generators the latent explains {{ one.eta2 | d(3) }} of the variance of {{ d }} \
({{ one.by_chance | d(3) }} would be chance; F {{ one.f | d(2) }}, p {{ one.p | p }})\
{% else %}An effect of the latent on {{ d }} cannot be tested{% endif %}\
{% if one.pairs and one.pairs[0].r | defined_number %}; \
the two generators with the strongest correlation over equal latents are \
{{ one.pairs[0].first }} and {{ one.pairs[0].second }}, Pearson's r {{ one.pairs[0].r | d(3) }}, \
p {{ one.pairs[0].p | p }} ({{ one.pairs[0].p_adjusted | p }} as the best of \
{{ one.pairs | length }} pairs, Bonferroni){% endif %}. {% endfor %}
Table: [latents.csv](latents.csv).
{% endif -%}
{% if f.distortions %}
## Distortions

![videos with each category](fig3a_distortions.png)

As Fig. 3(a); {{ f.distortions.videos }} videos have categories. Table: \
[fig3a_distortions.csv](fig3a_distortions.csv), videos that have two of them: \
[together.csv](together.csv).

![categories of each generator](fig3b_generators.png)

As Fig. 3(b): the videos of each generator with each category, coloured by their share. Table: \
[fig3b_generators.csv](fig3b_generators.csv).

{% set against = f.distortions.against -%}
| category | videos | share |{% for d in against %} mean {{ d }} with / without it |{% endfor %}
|---|---|---|{% for d in against %}---|{% endfor %}
{% for name, n in f.distortions.counts.items() -%}
| {{ name }} | {{ n }} | {{ f.distortions.shares[name] | percent }} |\
{% for one in against.values() %} \
{{ one.by_category[name].with | d(1) }} / {{ one.by_category[name].without | d(1) }} |{% endfor %}
{% endfor %}
| categories in a video | videos |{% for d in against %} mean {{ d }} |{% endfor %}
|---|---|{% for d in against %}---|{% endfor %}
{% for number, n in f.distortions.per_video.items() -%}
| {{ number }} | {{ n }} |{% for one in against.values() %} \
{{ one.by_number[number].mean | d(1) if number in one.by_number else "" }} |{% endfor %}
{% endfor %}
{% for d, one in against.items() -%}
Number of categories against {{ d }}: SRCC {{ one.number.srcc | d(3) }}, \
{{ one.number.n }} videos. \
{% endfor %}
{% if f.distortions.contradictory -%}
**{{ f.distortions.contradictory | length }} videos have "No Distortion" beside another \
category**, the first are {{ f.distortions.contradictory[:5] | join(", ") }}.
{% endif -%}
{% endif -%}
{% if f.marks or f.strips %}
## Marks
{% if f.strips %}
![strips with their marks](fig5_strips.png)

As Fig. 5: on the left the strip with the annotators' dots and its categories, on the right (where
there are maps) its map, brighter for higher values, over the grey strip. Shown are the worst
video, the best and the quartiles by the mean of both scores (without scores, by name), among the
videos that have marks where there are any. Table: [fig5_strips.csv](fig5_strips.csv).
{% endif -%}
{% if f.marks %}
Dots or maps of {{ f.marks.videos }} strips are there; on {{ f.marks.clean }} of them nothing is \
marked.{% if f.marks.dots is not none %} The annotators set {{ f.marks.dots }} dots\
{% if f.marks.outside is not none %}, of which {{ f.marks.outside }} lie in no region{% endif %}.\
{% endif %}{% if "regions" in f.marks.measures %} A region is a connected area of the map at \
{{ f.marks.level | d(2) }} of its scale 0 to 1 or above; the map's own peak is 1, so that a lone \
dot beside a crowd may fall short of it.{% endif %}

{% set measured = f.marks.measures -%}
{% set rated = f.scores.summary | list if f.scores else [] -%}
| a strip's | strips | mean | median | most |{% for d in rated %} SRCC with {{ d }} | strips |\
{% endfor %}
|---|---|---|---|---|{% for d in rated %}---|---|{% endfor %}
{% for measure, m in measured.items() -%}
{% set places = 4 if measure == "area" else 1 -%}
| {{ m.name }} | {{ m.strips }} | {{ m.mean | d(places) }} | \
{{ m.median | d(places) }} | {{ m.max | d(places) }} |{% for d in rated %} \
{{ m[d].srcc | d(3) }} | {{ m[d].n }} |{% endfor %}
{% endfor %}
{% if f.marks.drawn -%}
![marks against the scores](fig6_marks.png)

The paper (Section 3.4, Fig. 6) says that more and larger marked regions go with lower scores. The
line joins the means of about ten groups of videos, cut at the tenths of what is on the axis.
{% endif -%}
Table: [fig6_marks.csv](fig6_marks.csv).

| generator |{% for m in measured.values() %} mean {{ m.name }} |{% endfor %}
|---|{% for measure in measured %}---|{% endfor %}
{% for generator, means in f.marks.generators.items() -%}
| {{ generator }} |{% for measure in measured %} \
{{ means[measure] | d(4 if measure == "area" else 2) if measure in means else "" }} |{% endfor %}
{% endfor -%}
{% endif -%}
{% endif %}
{% if f.raters %}
## Raters

| dimension | raters | videos | ratings | missing | split-half SRCC | 95 % of the splits | \
whole panel | ICC(2,1) | ICC(2,k) | r between two |
|---|---|---|---|---|---|---|---|---|---|---|
{% for d, one in f.raters.items() -%}
{% set half, icc = one.split_half, one.icc -%}
| {{ d }} | {{ one.subjects }} | {{ one.videos }} | {{ one.ratings }} | {{ one.missing }} | \
{{ half.mean | d(3) }} | {{ half.low | d(3) }} to {{ half.high | d(3) }} | \
{{ half.spearman_brown | d(3) }} | {{ icc.single | d(3) }} | {{ icc.average | d(3) }} | \
{{ one.mean_between | d(3) }} |
{% endfor %}
![SRCC between halves of the raters](raters_halves.png)

All raters count here, those whom the screening rejects as well. The panel is halved at random
{{ (f.raters.values() | first).split_half.srcc | length }} times, each half scores the videos (mean
z-scores), and the two orders are compared; "whole panel" is the Spearman-Brown value for twice as
many raters. "r between two" is the mean of Pearson's r over all pairs of raters. ICC: two-way
random effects, absolute agreement, of one rater and of the mean of all, over the videos that all
have rated. Table: [raters_halves.csv](raters_halves.csv).

![agreement of each rater with the others](raters.png)

Pearson's r of each rater's ratings with the mean of all others. \
{% for d, one in f.raters.items() -%}
{% set rejected = one.reports | rejectattr("rejected", "none") | list -%}
{{ d | capitalize }}: {{ rejected | length }} of {{ one.subjects }} rejected\
{% for report in rejected %}{{ ": " if loop.first else "; " }}{{ report.subject }} \
({{ report.rejected }}){% endfor %}. \
{% if one.largest_gap_to_mos | defined_number -%}
The scores made from these ratings by Eq. 1-3 after ITU-R BT.500 screening differ from those of \
the data set by {{ "%.2g" | format(one.largest_gap_to_mos) }} at most. {% endif -%}
{% endfor %}
Tables: [raters.csv](raters.csv), [raters_between.csv](raters_between.csv).
{% endif -%}
{% if f.markers %}
## Markers

{% set m = f.markers -%}
{{ m.markers | length }} markers remarked on {{ m.videos }} videos; on {{ m.compared }} of them \
two or more can be compared. Two markers' categories of the same video overlap by \
{{ m.jaccard | d(3) }} on average (Jaccard index). \
{% if m.undecided %}{{ m.undecided | length }} videos stay undecided, the first are \
{{ m.undecided[:5] | join(", ") }}. {% endif -%}
{% if m.compared_with_labels -%}
The union of the markers, read by the built-in rules, differs from the data set's categories in \
{{ m.against_labels }} of {{ m.compared_with_labels }} videos.{% endif %}

| category | kappa |{% for k in range(m.markers | length + 1) %} videos named by {{ k }} |\
{% endfor %}
|---|---|{% for k in range(m.markers | length + 1) %}---|{% endfor %}
{% for category, kappa in m.kappa.items() -%}
| {{ category }} | {{ kappa | d(3) }} |{% for n in m.named_by[category] %} {{ n }} |{% endfor %}
{% endfor %}
| marker | videos without a remark | remarks that fit no rule | overlap with the others |\
{% if m.dots %} dots |{% endif %}
|---|---|---|---|{% if m.dots %}---|{% endif %}
{% for marker in m.markers -%}
| {{ marker }} | {{ m.missing[marker] }} | {{ m.unmatched[marker] }} | \
{{ m.jaccard_of[marker] | d(3) }} |{% if m.dots %} {{ m.dots.get(marker, 0) }} |{% endif %}
{% endfor %}
Kappa: of Fleiss, on naming a category or not. Table: [markers.csv](markers.csv).
{% endif %}
## Files

| file | what |
|---|---|
{% for name, what in f.files.items() -%}
| [{{ name }}]({{ name }}) | {{ what }} |
{% endfor -%}
| [stats.json](stats.json) | every figure of this page |
"""


def dataset_page(figures: dict[str, Any]) -> str:
    """The page as Markdown, with links relative to the folder that holds it.

    Args:
        figures: What `stats.json` holds; sections that are None are left out. NaN and None read as
            "undefined".
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {
        "d": _decimals,
        "defined_number": lambda x: not _undefined(x),
        "signed": lambda x: "undefined" if _undefined(x) else f"{x:+.2f}",
        "percent": lambda x: f"{x:.1%}".replace("%", " %"),
        "p": lambda p: "undefined" if _undefined(p) else f"{p:.2f}" if p >= 0.01 else f"{p:.1g}",
        "skewed": _skewed,
    }
    page = environment.from_string(_PAGE).render(f=_escaped(figures))
    # Blank lines and blanks at line ends are all that sections leave behind that are not there.
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", page))


def _escaped(content: Any) -> Any:
    """The figures with every text as Markdown that shows it: names of videos, people and folders
    are from outside. What the template itself looks for has nothing in it that is escaped.
    """
    if isinstance(content, dict):
        return {_escaped(key): _escaped(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_escaped(value) for value in content]
    return markdown_text(content) if isinstance(content, str) else content


def _undefined(x: float | None) -> bool:
    return x is None or math.isnan(x)


def _decimals(x: float | None, places: int) -> str:
    return "undefined" if _undefined(x) else f"{x:.{places}f}"


def _skewed(skew: float | None) -> str:
    if _undefined(skew):
        return "skew undefined"
    side = "left-skewed" if skew < 0 else "right-skewed"
    return f"{side} ({skew:.2f})" if abs(skew) >= 0.1 else f"nearly symmetric ({skew:.2f})"
