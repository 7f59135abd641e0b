"""What the page shows of one clip, as HTML: ratings on their scales, distortions, and the saliency
maps over the views.

Pure functions from numbers and pictures to strings. Whatever comes from outside (names of files,
replies of the model) is escaped.
"""

import base64
import io
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from lmme3dhf.aspects import Scale
from lmme3dhf.assessment import FLAG, Rating, flag_text, on_scale, score_text
from lmme3dhf.reports.plots.saliency import overlay
from lmme3dhf.scores import FAILED, ScoreRow

SHOWN_SIDE_PX = 480  # a view's longer side at most, as it is sent to the browser
_JPEG_QUALITY = 88
_BINS = 25
_HIGHEST_BIN = 34  # of the 40 units that a histogram is high
_OPACITY = 60  # per cent, at the start

STYLE = """\
.clip, .session { --accent: #0072b2; --soft: #5a5a5a;
  --line: var(--border-color-primary, #d5d5d5); --ground: var(--background-fill-secondary, #f5f5f5);
  overflow-wrap: break-word; line-height: 1.45; }
.dark .clip, .dark .session { --accent: #56b4e9; --soft: #b0b0b0; }
.clip h2 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
.clip h3 { font-size: 1.05rem; margin: 0 0 .3rem; }
.clip p { margin: .3rem 0; }
.clip .soft, .session .soft { color: var(--soft); font-size: .88rem; }
.clip .cards { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem;
  margin: .8rem 0; }
.clip .card { border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem;
  margin: .8rem 0; }
.clip .cards .card { margin: 0; }
.clip .authenticity, .dark .clip .authenticity { --accent: #d55e00; }
.clip .headline { font-size: 1.05rem; }
.clip .score { font-size: 2.2rem; font-weight: 700; line-height: 1.1; }
.clip .level { font-weight: 700; }
.clip .scale { margin: 1.9rem .6rem .5rem; font-size: .78rem; }
.clip .plot { position: relative; }
.clip .plot svg { display: block; width: 100%; height: 3.4rem; }
.clip .plot rect { fill: var(--accent); opacity: .22; }
.clip .plot rect.below { opacity: .6; }
.clip .bands { position: relative; height: 1.5rem; background: var(--ground); }
.clip .band { position: absolute; top: 0; bottom: 0; text-align: center; line-height: 1.5rem;
  border-left: 2px solid var(--block-background-fill, #fff); background: var(--ground);
  box-shadow: inset 0 -3px 0 var(--line); overflow: hidden; white-space: nowrap; }
.clip .band.here { font-weight: 700; box-shadow: inset 0 -3px 0 var(--accent); }
.clip .marker { position: absolute; top: -.3rem; bottom: 0; border-left: 2px solid currentColor; }
.clip .marker span { position: absolute; bottom: 100%; transform: translateX(-50%);
  font-weight: 700; white-space: nowrap; }
.clip .ticks { position: relative; height: 1.2rem; color: var(--soft); }
.clip .ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.clip .bars { display: grid; gap: .2rem .7rem; align-items: center; font-size: .9rem;
  grid-template-columns: fit-content(45%) minmax(0, 1fr) 3.7rem; }
.clip .bar { height: .75rem; background: var(--ground); border-radius: 3px; overflow: hidden; }
.clip .bar i { display: block; height: 100%; background: var(--accent); opacity: .45; }
.clip .bar i.named { opacity: 1; }
.clip .bars .named { font-weight: 700; }
.clip .bars .share { text-align: right; font-variant-numeric: tabular-nums; }
.clip .slider { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center;
  margin: .4rem 0 .7rem; }
.clip .slider label { display: flex; gap: .6rem; align-items: center; }
.clip .slider input { width: 12rem; accent-color: var(--accent); }
.clip .legend { display: flex; gap: .4rem; align-items: center; }
.clip .legend i { width: 8rem; height: .8rem; border-radius: 2px; }
.clip .views { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .6rem; }
.clip .views figure { margin: 0; }
.clip .views div { position: relative; }
.clip .views img { display: block; width: 100%; margin: 0; border-radius: 4px; }
.clip .views img.map { position: absolute; inset: 0; height: 100%; opacity: var(--opacity); }
.clip .views figcaption { text-align: center; font-size: .85rem; color: var(--soft); }
.clip .flag { border-left: 6px solid #d55e00; background: #fdf0e7; color: #1a1a1a;
  padding: .5rem .8rem; }
.clip .answer { white-space: pre-wrap; }
.refusal { border-left: 6px solid #d55e00; background: #fdf0e7; color: #1a1a1a;
  padding: .7rem 1rem; overflow-wrap: anywhere; }
.refusal strong { color: inherit; }
.session .scroll { overflow-x: auto; }
.session table { border-collapse: collapse; width: 100%; min-width: 40rem; font-size: .9rem;
  margin: .4rem 0; border: 0; }
.session tr, .session thead { border: 0; }
.session th, .session td { border: 0; border-bottom: 1px solid var(--line); padding: .35rem .5rem;
  text-align: left; vertical-align: top; overflow-wrap: normal; }
.session td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.session tr.remarked td { border-bottom: 0; padding-bottom: 0; }
.session td.file { width: 32%; overflow-wrap: anywhere; }
.session tr.failed td { color: #b04a00; }
.dark .session tr.failed td { color: #ff9d5c; }
@media (max-width: 640px) {
  .clip .scale { margin-left: .2rem; margin-right: .2rem; font-size: .66rem; }
  .clip .cards, .clip .views { grid-template-columns: minmax(0, 1fr); }
}
"""


def percentile_of(score: float, percentiles: Sequence[float]) -> float:
    """Where a score stands in a distribution, 0..100: linear between its percentiles, 0 below the
    lowest and 100 above the highest; the middle of those that equal the score.

    Args:
        score: On the scale of the percentiles.
        percentiles: 101 numbers that do not fall, of 0 to 100 per cent.
    """
    first, after = bisect_left(percentiles, score), bisect_right(percentiles, score)
    if after > first:
        return (first + after - 1) / 2
    if first in (0, len(percentiles)):
        return 100.0 * (first > 0)
    low, high = percentiles[first - 1], percentiles[first]
    return first - 1 + (score - low) / (high - low)


def histogram(
    percentiles: Sequence[float], minimum: float = 0.0, maximum: float = 100.0
) -> list[float]:
    """Shares of a distribution in `_BINS` equal bins from minimum to maximum; what lies outside
    counts to the outer bins. They sum to 1.

    Args:
        percentiles: As of `percentile_of`.
        minimum: The lower end of the scale.
        maximum: The upper end.
    """
    draws = np.interp(np.linspace(0, 100, 4001), np.arange(len(percentiles)), percentiles)
    edges = np.linspace(minimum, maximum, _BINS + 1)
    count_B, _ = np.histogram(np.clip(draws, edges[0], edges[-1]), edges)
    return (count_B / len(draws)).tolist()


def rating_card(aspect: str, rating: Rating, training: Mapping[str, Any] | None) -> Markup:
    """One aspect: the score on its scale, the level with its probabilities, and where the score
    stands among the videos of the training.

    Args:
        aspect: Its name.
        rating: The rating; it has a score.
        training: Distribution of its training scores, as in metric.json; None where unknown.
    """
    scale, words = rating.scale, Markup("")
    if rating.level is not None:
        words = Markup(
            '<p>Level word: <span class="level">{}</span>, probability {}.</p>{}'
        ).format(
            rating.level,
            _share(rating.level_probabilities[rating.level]),
            bars(rating.level_probabilities, (rating.level,)),
        )
    return Markup(
        '<section class="card {name}" data-dimension="{name}"><h3>{title}</h3>'
        '<p class="headline"><span class="score">{score}</span> on a scale of {minimum:g} to '
        "{maximum:g}, {direction}</p>{flag}{scale}"
        '<p class="standing">{standing}</p>{words}</section>'
    ).format(
        name=aspect,
        title=shown_name(aspect),
        score=score_text(rating.score, scale),
        flag=_flag([aspect] if rating.outside_training else ()),
        minimum=scale.minimum,
        maximum=scale.maximum,
        direction=scale.direction,
        scale=_scale_picture(rating.score, scale, training),
        standing=standing(rating.score, training),
        words=words,
    )


def shown_name(aspect: str) -> str:
    """An aspect's name as a heading."""
    return aspect.replace("_", " ").capitalize()


def _flag(aspects: Sequence[str]) -> Markup:
    if not aspects:
        return Markup("")
    return Markup('<p class="flag">{} {}.</p>').format(FLAG, flag_text(aspects))


def standing(score: float, training: Mapping[str, Any] | None) -> str:
    """Where a score stands in the training distribution, in words."""
    if not training:
        return "Where it stands among the training videos: unknown; the model folder does not say."
    rank = percentile_of(score, training["percentiles"])
    videos = f"the {training['videos']} training videos"
    if rank in (0, 100):
        return f"{'Above' if rank else 'Below'} all of {videos}."
    return f"Higher than {rank:.0f} % of {videos}, by their opinion scores."


def _scale_picture(score: float, scale: Scale, training: Mapping[str, Any] | None) -> Markup:
    low, high = scale.minimum, scale.maximum

    def place(value: float) -> float:
        return 100 * (on_scale(value, scale) - low) / (high - low)

    plot = Markup("")
    if training:
        shares = histogram(training["percentiles"], low, high)
        tallest, width = max(shares), 100 / len(shares)
        rects = Markup("").join(
            Markup('<rect{} x="{:g}" y="{:.2f}" width="{:g}" height="{:.2f}"/>').format(
                Markup(' class="below"') if (i + 0.5) * width < place(score) else "",
                i * width + 0.1,
                40 - _HIGHEST_BIN * share / tallest,
                width - 0.2,
                _HIGHEST_BIN * share / tallest,
            )
            for i, share in enumerate(shares)
            if share
        )
        plot = Markup(
            '<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" '
            'aria-label="scores of the training videos">{}</svg>'
        ).format(rects)
    bands = Markup("")
    if scale.edges:
        here = scale.level(score)
        # Beyond the fitted range the outer levels go on.
        places = [0.0, *map(place, scale.edges[1:-1]), 100.0]
        bands = Markup('<div class="bands">{}</div>').format(
            Markup("").join(
                Markup('<div class="band{}" style="left:{:.2f}%;width:{:.2f}%">{}</div>').format(
                    " here" if level == here else "", left, right - left, level
                )
                for level, left, right in zip(scale.levels, places, places[1:], strict=False)
            )
        )
    ticks = Markup("").join(
        Markup('<span style="left:{:g}%">{:g}</span>').format(place(tick), tick)
        for tick in np.linspace(low, high, 5 if (high - low) % 5 else 6).tolist()
    )
    return Markup(
        '<div class="scale"><div class="plot">{}{}<div class="marker" style="left:{:.2f}%">'
        '<span>{}</span></div></div><div class="ticks">{}</div></div>'
    ).format(plot, bands, place(score), score_text(score, scale), ticks)


def _share(probability: float) -> str:
    """Per cent; never 0 or 100 where it is neither."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.995 <= probability < 1:
        return "> 99 %"
    return f"{100 * probability:.{1 if 0.001 <= probability < 0.0995 else 0}f} %"


def bars(probabilities: Mapping[str, float], named: Sequence[str]) -> Markup:
    """Probabilities as bars; those of `named` are marked.

    Args:
        probabilities: Word -> 0..1.
        named: Words that the model says.
    """
    rows = Markup("").join(
        Markup(
            '<span{mark}>{tick}{word}</span><span class="bar"><i{mark} style="width:{width:.1f}%">'
            '</i></span><span class="share">{share}</span>'
        ).format(
            mark=Markup(' class="named"') if word in named else "",
            tick="\N{CHECK MARK} " if word in named else "",
            word=word,
            width=100 * probability,
            share=_share(probability),
        )
        for word, probability in probabilities.items()
    )
    return Markup('<div class="bars">{}</div>').format(rows)


def distortion_card(named: Sequence[str], probabilities: Mapping[str, float]) -> Markup:
    """The distortions that the model names, and how probable each is."""
    return Markup(
        '<section class="card distortions"><h3>Distortions</h3><p>Named: <strong>{}</strong>.</p>'
        "{}</section>"
    ).format("; ".join(named), bars(probabilities, named))


def view_card(
    pictures: Sequence[np.ndarray], yaws_deg: Sequence[float], map_HW: np.ndarray | None
) -> Markup:
    """The views with the saliency map over them, which a slider fades in the browser.

    Args:
        pictures: uint8 (H, W, 3) RGB, one per view.
        yaws_deg: Of the head in each view.
        map_HW: (H, views * W) in 0..1; None for a model that predicts none.
    """
    maps = [None] * len(pictures) if map_HW is None else np.hsplit(map_HW, len(pictures))
    figures = Markup("").join(
        _view(picture, yaw, view_map)
        for picture, yaw, view_map in zip(pictures, yaws_deg, maps, strict=True)
    )
    if map_HW is None:
        head = Markup("<p>This model has no saliency decoder, so there is no map.</p>")
    else:
        head = Markup(
            '<div class="slider"><label>Opacity of the map <input type="range" min="0" max="100" '
            'value="{start}" aria-label="Opacity of the map" oninput="this.closest(\'.saliency\')'
            ".style.setProperty('--opacity', this.value / 100)\"></label>"
            '<span class="legend soft">0 <i style="background:{ramp}"></i> 1</span></div>'
            '<p class="soft">Predicted, and not stretched: the highest value is {highest:.2f}. At '
            "full opacity the colours are those of the bar.</p>"
        ).format(start=_OPACITY, ramp=_ramp(), highest=float(map_HW.max()))
    return Markup(
        '<section class="card saliency" style="--opacity:{}">'
        '<h3>Where people would mark distortions</h3>{}<div class="views">{}</div></section>'
    ).format(_OPACITY / 100, head, figures)


def _view(picture_HW3: np.ndarray, yaw_deg: float, map_HW: np.ndarray | None) -> Markup:
    shown = Image.fromarray(np.ascontiguousarray(picture_HW3))
    shown.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX))
    alt = f"view at {_degrees(yaw_deg)}"
    layers = Markup('<img src="{}" alt="{}">').format(_data_uri(shown), alt)
    if map_HW is not None:
        small_HW = np.asarray(Image.fromarray(map_HW).resize(shown.size, Image.Resampling.BILINEAR))
        laid = Image.fromarray(overlay(np.asarray(shown), small_HW.clip(0, 1)))
        layers += Markup('<img class="map" src="{}" alt="saliency map, {}">').format(
            _data_uri(laid), alt
        )
    return Markup("<figure><div>{}</div><figcaption>{}</figcaption></figure>").format(
        layers, _degrees(yaw_deg)
    )


def _degrees(yaw: float) -> str:
    sign = "\N{MINUS SIGN}" if yaw < 0 else "+" if yaw > 0 else ""
    return f"{sign}{abs(yaw):g}\N{DEGREE SIGN}"


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def _ramp() -> str:
    """The colours of 0 to 1 over middle grey, for CSS."""
    colours_13 = overlay(np.full((1, 13, 3), 128.0), np.linspace(0, 1, 13)[None])[0]
    return f"linear-gradient(to right, {', '.join('rgb({},{},{})'.format(*c) for c in colours_13)})"


def answer_card(question: str, answer: str) -> Markup:
    """A question in the user's own words, and what the model writes."""
    return Markup(
        '<section class="card"><h3>Your question</h3><p class="soft">{}</p>'
        '<p class="answer">{}</p></section>'
    ).format(question, answer or "(The model writes nothing.)")


def clip_page(
    name: str,
    facts: str,
    cards: Sequence[Markup],
    ratings: Sequence[Markup],
    notes: Sequence[str] = (),
) -> Markup:
    """All that is said about a clip.

    Args:
        name: The name of its file.
        facts: One line about the clip.
        cards: What stands below the ratings.
        ratings: A card for each aspect.
        notes: What to know about how the clip was read.
    """
    noted = Markup("").join(Markup('<p class="flag">Note: {}.</p>').format(note) for note in notes)
    return Markup(
        '<article class="clip"><h2>{}</h2><p class="soft">{}</p>{}<div class="cards">{}</div>{}'
        "</article>"
    ).format(name, facts, noted, Markup("").join(ratings), Markup("").join(cards))


def refusal(name: str, reason: str, message: str) -> Markup:
    """A file that gives no score: its typed reason and the sentence."""
    return Markup(
        '<div class="refusal" data-reason="{}"><strong>{} was not scored ({}).</strong> {}.</div>'
    ).format(reason, name, reason.replace("_", " "), message.rstrip("."))


def head(
    model_name: str, aspects: Sequence[str], max_upload_mb: float, max_seconds: float
) -> Markup:
    """What stands above the field for clips: the model, and what it takes."""
    return Markup(
        '<div class="clip"><h1>LMME3DHF</h1><p>{} of an AI-generated 3D human face, '
        'from a video of it.</p><p class="soft">Model: {}. Clips of at most {:g} MB '
        "and {:g} s; an uploaded clip stays on this machine and is removed once it was scored."
        "</p></div>"
    ).format(
        shown_name(" and ".join(aspects)),
        model_name,
        max_upload_mb,
        max_seconds,
    )


def session_table(rows: Sequence[ScoreRow], aspects: Sequence[str], csv: bytes) -> Markup:
    """What was scored so far, the newest last, and the same as a file.

    Args:
        rows: Those of the session; for none nothing is drawn.
        aspects: What the model rates.
        csv: The rows as a CSV file.
    """
    if not rows:
        return Markup("")
    return Markup(
        '<section class="session"><h3>Scored in this session</h3><div class="scroll"><table>'
        "<thead><tr><th>File</th>{}<th>Distortions</th></tr></thead><tbody>{}</tbody></table></div>"
        '<p><a download="scores.csv" href="data:text/csv;base64,{}">Download as CSV</a> '
        '<span class="soft">with all probabilities; it is gone when the page is closed</span></p>'
        "</section>"
    ).format(
        Markup("").join(Markup("<th>{}</th>").format(shown_name(name)) for name in aspects),
        Markup("").join(_table_row(row, len(aspects)) for row in rows),
        base64.b64encode(csv).decode("ascii"),
    )


def _table_row(row: ScoreRow, aspects: int) -> Markup:
    if row.status == FAILED:
        return Markup(
            '<tr class="failed"><td class="file">{}</td><td colspan="{}">{}: {}</td></tr>'
        ).format(row.file, 1 + aspects, row.reason.replace("_", " "), row.message)
    remarks = [*[flag_text(row.outside_training)] * bool(row.outside_training), *row.notes]
    below = Markup('<tr><td class="soft" colspan="{}">{}.</td></tr>').format(
        2 + aspects, "; ".join(remarks)
    )
    return Markup('<tr{}><td class="file">{}</td>{}<td>{}</td></tr>{}').format(
        Markup(' class="remarked"') if remarks else "",
        row.file,
        Markup("").join(
            Markup('<td class="number">{}{}{}</td>').format(
                score_text(rating.score, rating.scale),
                f" ({rating.level})" if rating.level else "",
                f" {FLAG}" * (name in row.outside_training),
            )
            for name, rating in row.ratings.items()
        ),
        "; ".join(row.distortions or ()),
        below if remarks else "",
    )
