"""Aspects that a data set declares, from ratings to lists, folds, check and description: on a scale
of 1 to 5 with three words, without words, and with the best score at the low end.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf import cli
from lmme3dhf.annotations.levels import read_levels
from lmme3dhf.aspects import aspects_of
from lmme3dhf.data.check import check
from lmme3dhf.data.folds import protocol_splits, write_fold
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.describe import describe

DECLARED = """
natural:
  prompt: How natural is this face?
  answer_prefix: "I find it"
  scale: {minimum: 1, maximum: 5, levels: [low, middle, high]}
sharpness:
  prompt: Rate the sharpness.
  answer_prefix: The {aspect} is
  scale: {minimum: 0, maximum: 10, levels: []}
noise:
  prompt: Rate the noise.
  answer_prefix: The {aspect} is
  scale: {higher_is_better: false, levels: [none, some, much]}
"""
VIDEOS = [f"seed{number:04d}" for number in (0, 1, 2, 3, 4, 200, 201, 202, 203, 204)]
STEPS = np.arange(10)


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two raters of ten videos, who agree but for an offset, and what they remarked."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "strips").mkdir()
    rows = ["subject,video,natural,sharpness,noise"]
    for step, video in zip(STEPS, VIDEOS, strict=True):
        (tmp_path / "clips" / f"{video}.mp4").touch()
        strip = Image.fromarray(np.full((40, 120, 3), 120, np.uint8))
        strip.save(tmp_path / "strips" / f"{video}.png")
        for rater, offset in (("a", 0), ("b", 1)):
            rows.append(f"{rater},{video},{1 + step / 3 + offset / 3},{step},{10 * step + offset}")
    (tmp_path / "ratings.csv").write_text("\n".join(rows) + "\n")
    fine = [f"{marker},{video},looks fine" for marker in "ab" for video in VIDEOS]
    (tmp_path / "remarks.csv").write_text("\n".join(["marker,video,remark", *fine]) + "\n")
    (tmp_path / "aspects.yaml").write_text(DECLARED)
    return tmp_path


def labels(raw: Path, *options: str) -> Path:
    given = {"aspects": "aspects.yaml", "ratings": "ratings.csv", "remarks": "remarks.csv"}
    given |= {"videos": "clips", "strips": "strips", "out": "data"}
    arguments = [f"--{name}={raw / value}" for name, value in given.items()]
    assert cli.main(["data", "labels", *arguments, "--eval_share=0.4", *options]) == 0
    return raw / "data"


def test_scores_of_each_scale_reach_the_lists(raw):
    """By hand: ten even steps have z = (i - 4.5) / sqrt(55 / 6), and Eq. 1-3 give minimum + width
    (z + 3) / 6. Catches 0..100 for all, a scale turned round for its direction, words of another
    aspect, and a text list of an aspect that has none.
    """
    data = labels(raw)
    assert aspects_of(data) == aspects_of(raw)
    z = (STEPS - 4.5) / (55 / 6) ** 0.5
    expected = {"natural": (1, 4), "sharpness": (0, 10), "noise": (0, 100)}
    written = json.loads((data / "MOS.json").read_text())
    for name, (minimum, width) in expected.items():
        scores = [written[video][name] for video in VIDEOS]
        assert scores == pytest.approx((minimum + width * (z + 3) / 6).tolist())
    assert {path.name.split("_")[1] for path in (data / "text").iterdir()} == {
        "natural.json",
        "noise.json",
    }
    aspects = aspects_of(data)
    scales = read_levels(data / "levels.json", aspects)
    assert {name: len(scale.edges) for name, scale in scales.items()} == {"natural": 4, "noise": 4}
    for part in ("train", "eval"):
        for name in expected:
            for sample in read_list(data / "numerical" / f"{part}_{name}.json", aspects=aspects):
                assert (sample.task, sample.prompt) == (name, aspects[name].prompt)
                assert sample.values == {name: written[sample.video][name]}
                scale = scales.get(name)
                levels = {name: scale.level(sample.mos)} if scale else {}
                assert sample.levels == levels
    train = read_list(data / "numerical/train_noise.json", aspects=aspects)
    worst, best = (f(train, key=lambda sample: sample.mos) for f in (max, min))
    assert (worst.level, best.level) == ("much", "none")
    sharp = read_list(data / "numerical/train_sharpness.json", aspects=aspects)[0]
    assert sharp.reply == f"The sharpness is ({sharp.mos})"
    table = (data / "opinion_scores.csv").read_text().splitlines()
    assert table[0].endswith("level,low,middle,high,none,some,much")
    assert table[2].endswith(",,,,,,,")  # sharpness: neither level nor probabilities


def test_the_check_knows_the_aspects(raw):
    """Good as it is made; then a wrong word, a score beyond the scale and another score in MOS.json
    are found. Catches a check that passes over aspects it does not know, or refuses them.
    """
    data = labels(raw, "--rule=mle", "--screening=none")
    report = check(data, decode="none")
    assert report.errors == 0
    assert "aspects.yaml" not in report.passed_over
    path = data / "text" / "train_noise.json"
    path.write_text(path.read_text().replace("is none.", "is much.", 1))
    path = data / "numerical" / "train_natural.json"
    path.write_text(path.read_text().replace("(1.", "(5.", 1))
    scores = json.loads((data / "MOS.json").read_text())
    video = json.loads((data / "numerical/train_sharpness.json").read_text())[0]["videos"][0]
    scores[video.removesuffix(".mp4")]["sharpness"] += 0.5
    (data / "MOS.json").write_text(json.dumps(scores))
    report = check(data, decode="none")
    found = {(finding.kind, finding.place.split(":")[0]) for finding in report.findings}
    assert ("level", "text/train_noise.json") in found
    assert ("score", "numerical/train_sharpness.json") in found
    assert ("row", "numerical/train_natural.json") in found
    # One list alone finds its aspects in the data set above it.
    assert check(data / "numerical/eval_sharpness.json", decode="none").errors == 0
    # Without the file they are given, or nothing is understood.
    (data / "aspects.yaml").unlink()
    assert check(data, decode="none", aspects=aspects_of(raw)).findings == report.findings
    assert check(data, decode="none").errors > report.errors


def test_folds_and_the_description_take_them_along(raw):
    """Edges are fitted on the fold's training part alone. Catches aspects that a fold loses, a
    description of Gen3DHF's two, and scores of different scales in one histogram.
    """
    data = labels(raw)
    splits = protocol_splits(data, "grouped")
    name, split = next(iter(splits.items()))
    out = raw / "fold"
    write_fold(data, split, out, name=name, latents_shared=False)
    aspects = aspects_of(out)
    assert list(aspects) == ["natural", "sharpness", "noise"]
    assert json.loads((out / "splits.json").read_text())["protocol"] == name
    written = json.loads((data / "MOS.json").read_text())
    train = [written[video]["natural"] for video in split["train"]]
    edges = read_levels(out / "levels.json", aspects)["natural"].edges
    assert edges == pytest.approx(np.linspace(min(train), max(train), 4).tolist())
    assert not (out / "text/train_sharpness.json").exists()
    figures = describe(data, raw / "stats")
    assert list(figures["scores"]["summary"]) == ["natural", "sharpness", "noise"]
    assert list(figures["levels"]) == ["natural", "noise"]
    highest = figures["scores"]["summary"]["natural"]["all"]["max"]
    assert highest == pytest.approx(max(written[v]["natural"] for v in VIDEOS))
    # All aspects have the same z-scores, so in percent of the scale their histograms are the same.
    rows = (raw / "stats/fig2a_mos.csv").read_text().splitlines()[1:]
    for row in rows:
        low, _, *counts = map(float, row.split(","))
        assert 0 <= low < 100
        assert len(set(counts)) == 1
    page = (raw / "stats/stats.md").read_text()
    (data / "aspects.yaml").unlink()
    words = ["data", "stats", str(data), f"--aspects={raw / 'aspects.yaml'}"]
    assert cli.main([*words, f"--out={raw / 'given'}"]) == 0
    assert (raw / "given/stats.md").read_text() == page
    assert "natural 1 to 5, higher is better" in page
    assert "noise 0 to 100, lower is better" in page


def test_finished_scores_are_taken(raw):
    """`MOS.json` in place of ratings gives the same lists. Catches finished scores of two aspects
    only.
    """
    data = labels(raw)
    again = raw / "again"
    options = [f"--aspects={raw / 'aspects.yaml'}", f"--strips={raw / 'strips'}"]
    options += [f"--mos={data / 'MOS.json'}", f"--videos={raw / 'clips'}", f"--out={again}"]
    assert cli.main(["data", "labels", *options, "--eval_share=0.4"]) == 0
    for path in data.glob("numerical/*.json"):
        assert (again / "numerical" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("How natural is this face?", "Does it show {prompt}?", "needs the slot 'prompt'"),
        ("noise:", "grain:", "ratings.csv:1: header is"),
        ("maximum: 5", "maximum: 0", "aspects.yaml: "),
        ("[low, middle, high]", "[low]", "aspects.yaml: "),
    ],
)
def test_aspects_that_do_not_fit_stop_before_anything_is_made(raw, capsys, before, after, reason):
    """Catches a traceback, and a data set that is half made."""
    (raw / "aspects.yaml").write_text(DECLARED.replace(before, after))
    given = [f"--aspects={raw / 'aspects.yaml'}", f"--ratings={raw / 'ratings.csv'}"]
    given += [f"--videos={raw / 'clips'}", f"--out={raw / 'data'}"]
    assert cli.main(["data", "labels", *given, "--eval_share=0.4"]) == 1
    assert reason in capsys.readouterr().err
    assert not (raw / "data").exists()


def test_images_are_rated_as_clips_are(raw):
    """Catches images passed over, and strips cut from them."""
    for path in (raw / "clips").iterdir():
        picture = Image.fromarray(np.full((56, 56, 3), 90, np.uint8))
        picture.save(path.with_suffix(".png"))
        path.unlink()
    shutil.rmtree(raw / "strips")
    (raw / "strips").mkdir()
    data = labels(raw)
    samples = read_list(data / "numerical/eval_noise.json", aspects=aspects_of(data))
    assert {sample.path.suffix for sample in samples} == {".png"}
    assert all(sample.path.is_file() for sample in samples)
    assert not (data / "image").exists()
    assert check(data).errors == 0
    samples[0].path.write_bytes(samples[0].path.read_bytes()[:60])
    assert check(data).errors == 1
