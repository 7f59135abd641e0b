"""What the page says about a clip: figures worked by hand, pictures read back, and text from
outside that stays text.
"""

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.app import drawing
from lmme3dhf.aspects import GEN3DHF, Scale
from lmme3dhf.assessment import FLAG
from lmme3dhf.reports.plots.saliency import overlay
from lmme3dhf.scorer import Rating
from lmme3dhf.scores import ScoreRow, scores_csv
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION
from tests.conftest import GEN3DHF_FIELDS, score_row
from tests.reports.html_page import ReadPage

EVIL = "<script>alert('x')</script> & \"y\" <img src=http://a.b/c.png>"
# Half of the videos lie evenly between 20 and 40, half between 40 and 80.
PERCENTILES = [20 + 0.4 * i for i in range(50)] + [40 + 0.8 * i for i in range(51)]
SCALE = Scale(edges=(20.0, 32.0, 44.0, 56.0, 68.0, 80.0))
TRAINING = {"videos": 51, "mean": 45.0, "deviation": 17.0, "percentiles": PERCENTILES}
CHANCES = {"bad": 0.02, "poor": 0.25, "fair": 0.5, "good": 0.22999, "excellent": 0.00001}


def rating(score: float, **changes) -> Rating:
    about = {"level": "fair", "level_probabilities": CHANCES, "scale": SCALE}
    return Rating(score=score, **about | changes)


@pytest.mark.parametrize(
    ("score", "rank"),
    [
        (30.0, 25),
        (40.0, 50),
        (44.0, 55),
        (60.4, 75.5),
        (20.0, 0),
        (19.0, 0),
        (80.0, 100),
        (99, 100),
    ],
)
def test_percentile_by_hand(score, rank):
    """In a made-up distribution, with its ends and beyond them. Catches ranks that are off by one,
    and scores outside the training range that have none.
    """
    assert drawing.percentile_of(score, PERCENTILES) == pytest.approx(rank)


def test_percentile_among_equal_scores():
    """61 of the 101 percentiles, the 20th to the 80th, are 50: a score of 50 stands in their
    middle. Catches a rank that depends on the side from which one looks.
    """
    percentiles = [30.0 + i for i in range(20)] + [50.0] * 61 + [51.0 + i for i in range(20)]
    assert drawing.percentile_of(50.0, percentiles) == 50
    assert drawing.percentile_of(49.5, percentiles) == 19.5
    assert drawing.percentile_of(50.5, percentiles) == 80.5


def test_histogram_by_hand():
    """Five bins of 4 points between 20 and 40 with a tenth of the videos each, ten between 40 and
    80 with a twentieth, none elsewhere. Catches bins that are shifted, and a curve of another set.
    """
    shares = drawing.histogram(PERCENTILES)
    expected = [0] * 5 + [0.1] * 5 + [0.05] * 10 + [0] * 5
    assert shares == pytest.approx(expected, abs=0.002)
    assert sum(shares) == pytest.approx(1)
    assert drawing.histogram([-10.0] * 101)[0] == 1
    assert drawing.histogram([110.0] * 101)[-1] == 1


@pytest.mark.parametrize(
    ("score", "band", "place"),
    [
        (50.0, "fair", 50),
        (56.0, "fair", 56),
        (56.1, "good", 56.1),
        (3.0, "bad", 3),
        (97.0, "excellent", 97),
        (-4.0, "bad", 0),
        (108.0, "excellent", 100),
    ],
)
def test_a_score_stands_in_its_band(score, band, place):
    """Edges at 32, 44, 56, 68; an edge belongs to the band below it, the outer bands go on to the
    ends of the scale, and a score beyond the scale is drawn and written at its end.
    """
    page = str(drawing.rating_card("quality", rating(score), TRAINING))
    assert not ReadPage(page).faults
    bands = re.findall(r'class="band( here)?" style="left:([\d.]+)%;width:([\d.]+)%">(\w+)', page)
    assert [(word, float(left), float(width)) for _, left, width, word in bands] == [
        ("bad", 0, 32),
        ("poor", 32, 12),
        ("fair", 44, 12),
        ("good", 56, 12),
        ("excellent", 68, 32),
    ]
    assert [word for here, _, _, word in bands if here] == [band]
    marker = re.search(r'class="marker" style="left:([\d.]+)%"><span>(-?[\d.]+)<', page)
    assert (float(marker[1]), float(marker[2])) == (place, place)
    assert f'<span class="score">{place:.1f}</span>' in page


def test_a_rating_in_words():
    """The level with its own probability and all five, the rank and the direction. Catches the
    probability of another level, and 0 % for what is merely rare.
    """
    text = ReadPage(str(drawing.rating_card("authenticity", rating(60.4), TRAINING))).text
    assert "Level word: fair, probability 50 %." in text
    assert "poor25 %✓ fair50 %good23 %excellent< 0.1 %" in text.replace("% ", "%")
    assert "bad2.0 %" in text
    assert "60.4 on a scale of 0 to 100, higher is better" in text
    assert "Higher than 76 % of the 51 training videos" in text
    assert drawing.standing(19, TRAINING) == "Below all of the 51 training videos."
    assert drawing.standing(81, TRAINING) == "Above all of the 51 training videos."


def test_a_model_without_distribution_and_edges_says_so():
    """An older model folder. Catches a rank or bands that nobody measured."""
    page = str(drawing.rating_card("quality", rating(50), None))
    assert "Where it stands among the training videos: unknown" in page
    assert "<svg" not in page
    page = str(drawing.rating_card("quality", rating(50, scale=Scale()), TRAINING))
    assert 'class="band' not in page
    assert 'class="marker"' in page


def test_distortions_are_marked_by_what_is_named():
    """The named ones are not always the likeliest: the marks follow the answer. Catches marks by a
    threshold of the page's own.
    """
    chances = dict(zip(DISTORTIONS, (0.6, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05), strict=True))
    page = str(drawing.distortion_card(DISTORTIONS[1:2], chances))
    assert re.findall(r"\N{CHECK MARK} ([\w ]+)<", page) == [DISTORTIONS[1]]
    assert re.findall(r'<i class="named" style="width:([\d.]+)%', page) == ["30.0"]
    widths = [float(width) for width in re.findall(r'<i[^>]* style="width:([\d.]+)%', page)]
    assert widths == pytest.approx([100 * chance for chance in chances.values()])
    assert f"Named: <strong>{DISTORTIONS[1]}</strong>." in page
    assert NO_DISTORTION in page


def pictures_in(page: str) -> list[np.ndarray]:
    """The pictures of a page, in order."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    opened = (Image.open(io.BytesIO(base64.b64decode(text))) for text in found)
    return [np.asarray(picture).astype(float) for picture in opened]


def test_each_view_has_its_own_part_of_the_map():
    """Grey views of three shades, a map that is high in the middle one alone. Catches maps that are
    cut at the wrong column, laid over another view, or stretched to its own highest value.
    """
    views = [np.full((60, 48, 3), shade, np.uint8) for shade in (40, 120, 200)]
    map_HW = np.zeros((60, 3 * 48), np.float32)
    map_HW[:, 48:96] = 0.5
    page = str(drawing.view_card(views, (-45, 0, 45), map_HW))
    assert not ReadPage(page).faults
    shown = pictures_in(page)
    assert [picture.shape for picture in shown] == [(60, 48, 3)] * 6
    for index, view in enumerate(views):
        expected = overlay(view, map_HW[:, index * 48 : (index + 1) * 48])
        assert np.abs(shown[2 * index] - view).max() < 4
        assert np.abs(shown[2 * index + 1] - expected).max() < 8
    assert "the highest value is 0.50" in page
    captions = ReadPage(page).captions
    assert captions == ["−45°", "0°", "+45°"]


def test_large_views_are_made_small_and_models_without_maps_say_so():
    """A browser has no use for 4096 pixels a side. Catches a page of many megabytes, and a slider
    that moves nothing.
    """
    views = [np.full((300, 1500, 3), 90, np.uint8)] * 3
    page = str(drawing.view_card(views, (-45, 0, 45), None))
    assert [picture.shape for picture in pictures_in(page)] == [(96, 480, 3)] * 3
    assert "no saliency decoder" in page
    assert "<input" not in page


def test_text_from_outside_stays_text():
    """Names of files, replies, questions and messages. Catches a file name that becomes a part of
    the page.
    """
    row = ScoreRow(file=EVIL, status="failed", reason="not_a_video", message=EVIL)
    parts = [
        drawing.head(EVIL, ["quality"], 200, 120),
        drawing.clip_page(EVIL, EVIL, [drawing.answer_card(EVIL, EVIL)], []),
        drawing.refusal(EVIL, "not_a_video", EVIL),
        drawing.session_table([row], list(GEN3DHF), scores_csv([row], GEN3DHF_FIELDS)),
    ]
    for part in parts:
        page = ReadPage(str(part))
        assert not {"script", "img"} & page.names
        assert not page.faults
        assert EVIL in page.text


def test_the_table_of_the_session_is_the_table_of_scores():
    """A scored and a failed file, as rows and as the CSV behind the link. Catches a failure without
    its reason, and a download that says something else.
    """
    scored = score_row(
        file="a.mp4",
        status="ok",
        quality=46.25,
        quality_level="fair",
        authenticity=12.0,
        authenticity_level="bad",
        distortions=DISTORTIONS[:2],
    )
    failed = ScoreRow(file="=b.mp4", status="failed", reason="too_short", message="b is short")
    rows = [scored, failed]
    page = str(drawing.session_table(rows, list(GEN3DHF), scores_csv(rows, GEN3DHF_FIELDS)))
    _, first, second = ReadPage(page).tables[0]
    assert first[:3] == ["a.mp4", "46.2 (fair)", "12.0 (bad)"]
    assert first[3] == "Eye Distortions; Mouth Distortions"
    assert second[:2] == ["=b.mp4", "too short: b is short"]
    link = re.search(r'download="scores.csv" href="data:text/csv;base64,([^"]+)"', page)
    text = base64.b64decode(link[1]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["file"] for row in rows] == ["a.mp4", "'=b.mp4"]
    assert rows[0]["quality"] == "46.25"
    assert rows[1]["reason"] == "too_short"
    assert drawing.session_table([], [], b"") == ""


def test_a_score_far_outside_is_shown_on_the_scale_with_a_flag():
    """A natural clip of 178.56. Catches a number beyond the scale in the card or in the table of
    the session, a flag that is not seen, and a note that is lost.
    """
    wild = rating(178.56, outside_training=True)
    page = drawing.rating_card("quality", wild, TRAINING)
    assert "178" not in page
    assert '<span class="score">100.0</span>' in page
    assert '<p class="flag">' in page
    assert '<p class="flag">' not in drawing.rating_card("quality", rating(50.0), TRAINING)
    row = score_row(
        file="a.mp4",
        status="ok",
        quality=178.56,
        authenticity=50.0,
        distortions=(),
        notes=(f"a note {EVIL}",),
    )
    table = drawing.session_table([row], list(GEN3DHF), scores_csv([row], GEN3DHF_FIELDS))
    shown, below = ReadPage(table).tables[0][1:]
    assert (shown[1].split()[0], shown[2].split()[0]) == ("100.0", "50.0")
    assert (FLAG in shown[1], FLAG in shown[2]) == (True, False)
    assert "flagged: the raw score of quality" in below[0]
    assert "a note" in below[0]
    assert b"178.56" in scores_csv([row], GEN3DHF_FIELDS)
    noted = drawing.clip_page("a.mp4", "", [], [], ["a note"])
    assert "Note: a note." in noted
    assert not ReadPage(table).faults
    assert not ReadPage(noted).faults
