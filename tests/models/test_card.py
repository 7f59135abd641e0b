"""What a merged folder says about itself: scales for programs, a page for people, and nothing about
whoever made it.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from lmme3dhf.cli import main
from lmme3dhf.features.recipe import DECODER as READING
from lmme3dhf.files import MANIFEST, damage, write_manifest
from lmme3dhf.models import card
from lmme3dhf.models.card import (
    CARD,
    METRIC,
    README,
    CardError,
    add_test,
    merge_summary,
    read_card,
    read_metric,
    write_card,
)
from lmme3dhf.models.folder import model_hash
from lmme3dhf.pipeline import evaluation
from lmme3dhf.predictions import Prediction, read_predictions, write_predictions
from lmme3dhf.stages import run as runs
from lmme3dhf.stages.provenance import card_record, shown_settings
from lmme3dhf.training import TrainingError
from tests.models.conftest import HOME, SECRET, TESTED

MINE = (CARD, METRIC, README)
# Ranks 1, 2, 3, 5, 4 where the truth has 1 to 5. By hand: SRCC = 1 - 6 * 2 / (5 * 24) = .9; the
# same for PLCC, since the values are ranks times ten; one of ten pairs is turned, KRCC = .8.
PREDICTED = (10.0, 20.0, 30.0, 50.0, 40.0)
VIDEOS = ("seed0002", "seed0003", "seed0004", "seed0005", "seed0201")


@pytest.fixture
def copy(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "model"))


@pytest.fixture(scope="module")
def predictions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("predictions") / "predictions.jsonl"
    rows = [
        Prediction(video=video, dimension=d, method="LMME3DHF", score=score, decoder=READING)
        for d in ("quality", "authenticity")
        for video, score in zip(VIDEOS, PREDICTED, strict=True)
    ]
    write_predictions(path, rows)
    return path


def evaluated(folder: Path, predictions: Path, data_root: Path) -> int:
    lists = [str(data_root / "numerical" / f"eval_{d}.json") for d in ("quality", "authenticity")]
    words = ["--predictions", str(predictions), "--data", *lists, "--card", str(folder)]
    return main(["evaluate", *words])


def test_predictions_that_are_replaced_meanwhile_have_their_own_figures_and_hash(
    copy, predictions, data_root, tmp_path, monkeypatch
):
    """After the figures are made, before the hash is taken. Catches figures of one file beside the
    hash of another; those of the reversed scores are Spearman's of the others, negated.
    """
    mine = Path(shutil.copy(predictions, tmp_path / "predictions.jsonl"))
    turned = [dataclasses.replace(p, score=-p.score) for p in read_predictions(mine)]
    measure, replaced = evaluation.evaluate_file, []

    def measured(path: Path, *args, **options):
        figures = measure(path, *args, **options)
        if not replaced:
            replaced.append(figures["quality"]["srcc"])
            write_predictions(path, turned)
        return figures

    monkeypatch.setattr(evaluation, "evaluate_file", measured)
    assert evaluated(copy, mine, data_root) == 0
    (test,) = read_card(copy)["tests"]
    assert test["figures"]["quality"]["srcc"] == pytest.approx(-replaced[0])
    assert test["predictions_sha256"] == hashlib.sha256(mine.read_bytes()).hexdigest()


def test_metric_json_holds_the_scales_and_the_training_scores(published):
    """Distributions by hand from the lists' scores. Catches percentiles of other labels (the test
    part's, the other dimension's), and a deviation over n.
    """
    metric = json.loads((published / METRIC).read_text())
    quality = metric["dimensions"]["quality"]
    assert (quality["minimum"], quality["maximum"]) == (0, 100)
    assert quality["direction"] == "higher is better"
    assert quality["levels"] == ["bad", "poor", "fair", "good", "excellent"]
    assert quality["edges"] == pytest.approx([20, 28, 36, 44, 52, 60])  # Eq. 4 on 20..60
    training = quality["training"]
    assert (training["videos"], training["mean"], training["deviation"]) == (3, 40, 20)
    assert len(training["percentiles"]) == 101
    assert [training["percentiles"][p] for p in (0, 10, 25, 50, 100)] == [20, 24, 30, 40, 60]
    other = metric["dimensions"]["authenticity"]["training"]["percentiles"]
    assert [other[p] for p in (0, 50, 75, 100)] == [30, 31, 40.5, 50]
    assert (metric["format"], metric["stage"], metric["saliency"]) == (1, "score", False)
    assert metric["decoder"] == READING
    assert metric["frames"]["frames"] == 4
    assert [view["yaw_deg"] for view in metric["views"]] == [-45, 0, 45]
    assert len(metric["distortions"]) == 9
    assert read_metric(published) == metric


def test_a_folder_without_the_file_says_what_its_configuration_says(
    tiny_folder, published, tmp_path
):
    """A plain base, and a folder merged before there was a card. Catches a loader that stops, and
    edges that are there and not told.
    """
    plain = read_metric(tiny_folder)
    assert plain["dimensions"]["quality"]["edges"] is None
    assert plain["dimensions"]["quality"]["training"] is None
    assert (plain["stage"], plain["frames"], plain["saliency"]) == (None, None, False)
    shutil.copy(published / "config.json", tmp_path)
    older, now = read_metric(tmp_path), read_metric(published)
    assert older["dimensions"]["quality"]["training"] is None
    assert older["dimensions"]["quality"]["edges"] == now["dimensions"]["quality"]["edges"]
    assert older.keys() == now.keys()


@pytest.mark.parametrize("name", [METRIC, CARD])
@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}'])
def test_a_damaged_or_later_file_is_a_sentence(copy, name, content):
    """Catches a traceback, and scales of a format that this version does not know."""
    (copy / name).write_text(content)
    with pytest.raises(CardError, match=re.escape(str(copy / name))):
        (read_metric if name == METRIC else read_card)(copy)


def test_the_same_run_gives_the_same_bytes(stage_run, published, tmp_path):
    """Catches dates, paths and orders of dictionaries in what explains a model."""
    runs.merge_run(stage_run, tmp_path / "again")
    for name in (*MINE, MANIFEST):
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes(), name


def test_nothing_tells_who_made_it(published, stage_run, data_root, tiny_folder):
    """The settings hold a token, a home folder and absolute paths. Catches each of them in any text
    of the folder, and settings that are lost with them.
    """
    assert SECRET in (stage_run / "config.yaml").read_text()
    assert HOME in (stage_run / "config.yaml").read_text()
    secrets = (SECRET, HOME, str(data_root), str(data_root.parent), str(tiny_folder))
    texts = [p for p in published.iterdir() if p.suffix in (".json", ".md", ".jinja")]
    assert len(texts) > 6
    for path in texts:
        text = path.read_text()
        assert not [secret for secret in secrets if secret in text], path
    shown = read_card(published)["stages"][0]["settings"]
    trainer = shown["score"]["trainer"]
    assert trainer == {"hub_token": "(left out)", "deepspeed": "logs", "run_name": "(left out)"}
    assert shown["lora"]["rank"] == 8
    assert "text" not in shown
    # A secret is known by its name, too.
    other = {"lora": {"rank": 8}, "hardware": {"api_key": "abc", "save_steps": 5, "x_token": None}}
    hardware = {"api_key": "(left out)", "save_steps": 5, "x_token": None}
    assert shown_settings(other, "score", None)["hardware"] == hardware


def test_settings_of_two_machines_have_one_hash(stage_config, data_root, tmp_path):
    """Catches a settings hash that holds a folder: the same training would look like another."""
    from lmme3dhf.config import to_plain

    here = to_plain(stage_config)
    moved = dataclasses.replace(
        stage_config,
        model="elsewhere",
        data=dataclasses.replace(
            stage_config.data, root=tmp_path, video_root=tmp_path / "v", features=tmp_path / "f"
        ),
    )
    assert shown_settings(here, "score", "x") == shown_settings(to_plain(moved), "score", "x")
    other = to_plain(dataclasses.replace(stage_config, seed=7))
    assert shown_settings(here, "score", "x") != shown_settings(other, "score", "x")


def test_the_hub_reads_the_front_matter(published):
    """By the hub's own reader. Catches YAML that it refuses, and a licence that nobody gave."""
    data = ModelCard.load(published / README).data
    assert data.library_name == "lmme3dhf"
    assert data.pipeline_tag == "video-classification"
    assert "video-quality-assessment" in data.tags
    # The base of the tests has neither a card nor a place on the hub.
    assert (data.license, data.base_model) == ("other", None)
    assert not data.eval_results


def test_the_base_gives_its_name_and_licence(tiny_folder, stage_config, tmp_path):
    """A base in the hub's cache. Catches a card that gives Qwen's weights another licence."""
    base = tmp_path / "models--Qwen--Qwen2.5-VL-3B-Instruct" / "snapshots" / "0123"
    shutil.copytree(tiny_folder, base)
    front = {"license": "other", "license_name": "qwen-research", "license_link": "https://x/y"}
    lines = "".join(f"{key}: {value}\n" for key, value in front.items())
    (base / README).write_text(f"---\n{lines}---\n# Qwen\n")
    run = tmp_path / "run"
    runs.open_run(run, "score", stage_config, base, {})
    record = card_record(run, json.loads((run / runs.RUN).read_text()), base)
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    assert record["base"] == {"name": name, "hub": True, **front}
    shutil.copy(tiny_folder / "config.json", tmp_path)
    card.write_card(tmp_path, record)
    data = ModelCard.load(tmp_path / README).data
    assert (data.base_model, data.license, data.license_name) == (name, "other", "qwen-research")


def test_the_next_stage_goes_on_with_the_card(published, stage_config, tmp_path):
    """Stage 3 learns no scores. Catches a finished model that forgot on what its scores were
    trained, and the stages before it.
    """
    lists = ("numerical/train_quality.json",)
    saliency = dataclasses.replace(stage_config.saliency, lists=lists)
    config = dataclasses.replace(stage_config, saliency=saliency)
    runs.open_run(tmp_path, "saliency", config, published, {})
    record = card_record(tmp_path, json.loads((tmp_path / runs.RUN).read_text()), published)
    assert [entry["stage"] for entry in record["stages"]] == ["score", "saliency"]
    before = read_card(published)
    assert record["stages"][0] == before["stages"][0]
    assert record["base"] == before["base"]
    assert record["training"]["authenticity"] == before["training"]["authenticity"]
    assert record["stages"][1]["data"]["questions"] == 3


def test_an_older_merged_folder_is_merged_again_for_its_card(stage_run, copy):
    """Catches "was merged before" for ever after an update, and a second merge that is done for
    nothing.
    """
    assert runs.merge_run(stage_run, copy)["already"]
    for name in MINE:
        (copy / name).unlink()
    write_manifest(copy)
    assert not runs.merge_run(stage_run, copy)["already"]
    assert (copy / CARD).is_file()
    assert damage(copy) is None


def test_a_form_is_for_runs_with_an_adapter(stage_run, tmp_path):
    """Catches an option that is ignored in silence: this run trained the head alone."""
    with pytest.raises(TrainingError, match="--form"):
        runs.merge_run(stage_run, tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


FOLDED = {
    "relative_difference": 0.0247,
    "score_points_max": 2.21,
    "score_points_mean": 0.61,
    "score_points_bias": 0.1,
    "scores": 8,
    "pairs": 28,
    "swapped_pairs": 1,
    "level_reads": 8,
    "level_changes": 2,
}
EXACT = {name: 0 if type(value) is float else value for name, value in FOLDED.items()}


def test_a_merge_is_told_in_points_and_levels():
    """Catches a figure without its unit, and a form without its reason."""
    limits = {"relative_difference": 0.01, "score_points_max": 0.5, "level_changes": 0}
    report = {"samples": 16, "limits": limits, "form": "adapter", "folded": FOLDED, **EXACT}
    text = "; ".join(merge_summary(report))
    for words in ("kept beside", "2.2 points of MOS", "2 of 8 levels", "1 of 28 pairs", "0.025"):
        assert words in text
    # JSON knows no NaN: what overflows in float16 comes back as null.
    lost = FOLDED | {"score_points_max": None, "relative_difference": None}
    assert "undefined points of MOS" in merge_summary(report | {"folded": lost})[-1]
    assert "folded into" in merge_summary(report | FOLDED | {"form": "merged"})[0]
    assert "kept" not in merge_summary(report | {"form": "merged", "folded": None})


def test_a_card_shows_the_merges_of_every_version(published, tmp_path):
    """Catches a page that breaks on the record of an older merge, with one figure and one limit."""
    record = read_card(published)
    entry = record["stages"][0]
    merges = [
        {"relative_difference": 0.0039, "limit": 0.01, "samples": 4, "dtype": "bfloat16"},
        {"samples": 16, "form": "adapter", "folded": FOLDED, **FOLDED},
        None,
    ]
    shutil.copy(published / "config.json", tmp_path)
    write_card(tmp_path, record | {"stages": [entry | {"merge": merge} for merge in merges]})
    page = (tmp_path / "README.md").read_text()
    assert "0.0039 (limit 0.01)" in page
    assert "adapter kept beside: scores differ by at most 2.2 points of MOS" in page


def test_an_older_run_is_merged_with_a_card(stage_run, tmp_path):
    """Its record has no data. Where the lists are still there they are read; where not, the card
    says so. Catches a run that cannot be merged any more.
    """
    run = Path(shutil.copytree(stage_run, tmp_path / "run"))
    record = json.loads((run / runs.RUN).read_text())
    known = record.pop("data")
    base = Path(record["model"])
    assert card_record(run, record, base)["stages"][0]["data"]["videos"] == known["videos"] == 3
    settings = run / runs.SETTINGS
    text = settings.read_text()
    settings.write_text(re.sub(r"(?m)^  root: .*\n(    .*\n)*", "  root: gone\n", text))
    lost = card_record(run, record, base)
    assert lost["stages"][0]["data"] is None
    assert lost["training"] == {}


def test_the_page_tells_a_stranger_what_to_do(published):
    """Rendered as the hub does. Catches broken tables, markup out of a folder's name, and a page
    without its sections.
    """
    page = (published / README).read_text()
    body = page.split("---\n", 2)[2]
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "What it gives",
        "How to use it",
        "Test figures",
        "Training data",
        "Training",
        "Limits",
        "Licence",
        "Citation",
    ]
    for words in (
        "higher is better",
        "tiny model (hidden size 128",
        'Scorer.from_pretrained("MODEL").score("face.mp4")',
        "lmme3dhf score clips/ --model MODEL --out scores.csv",
        "no face recognition",
        "turntable clips",
        "None yet",
        "Apache-2.0",
    ):
        assert words in body, words
    assert "drawn faces" not in body  # the data set of this test is not synthetic
    # The folder's name is somebody's: it stays one cell, and no tag.
    assert "<b>" not in html
    rows = re.findall(r"<tr>\n(.*?)</tr>", html, re.DOTALL)
    by_table = [row.count("<td") for row in rows if "Faces" in row]
    assert by_table == [5]


def test_figures_on_the_card_are_those_of_the_predictions(copy, predictions, data_root, capsys):
    """Correlations by hand. Catches figures of something else, a manifest that calls the folder
    damaged afterwards, and a model that seems to be another one for its card.
    """
    weights = model_hash(copy)
    assert evaluated(copy, predictions, data_root) == 0
    body = (copy / README).read_text()
    for dimension in ("quality", "authenticity"):
        row = f"| {dimension}: SRCC / PLCC / KRCC | 0.900 / 0.900 / 0.800 |"
        assert row in body
    assert "5 videos of 5 faces" in body
    # seed0201 shows the face of seed0001.
    assert "1 of them also in training" in body
    assert "protocol `own`" in body
    results = ModelCard.load(copy / README).data.eval_results
    told = {result.metric_name: result.metric_value for result in results}
    assert told["quality SRCC"] == pytest.approx(0.9)
    assert len(TESTED) == len(PREDICTED)
    assert damage(copy) is None
    assert model_hash(copy) == weights
    assert capsys.readouterr().out


def test_the_same_test_is_told_once(copy, predictions, data_root):
    """Catches a card that grows with every evaluation."""
    assert evaluated(copy, predictions, data_root) == 0
    first = {name: (copy / name).read_bytes() for name in (*MINE, MANIFEST)}
    assert evaluated(copy, predictions, data_root) == 0
    assert {name: (copy / name).read_bytes() for name in first} == first
    assert len(read_card(copy)["tests"]) == 1


def test_the_manifest_is_the_one_that_a_merge_writes(copy, predictions, data_root):
    """Catches an entry that is added in another form than files.write_manifest gives it."""
    assert evaluated(copy, predictions, data_root) == 0
    listed = (copy / MANIFEST).read_bytes()
    write_manifest(copy)
    assert (copy / MANIFEST).read_bytes() == listed


def test_damaged_weights_stay_damaged(copy, predictions, data_root):
    """Catches a new manifest that makes a flipped byte right."""
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert evaluated(copy, predictions, data_root) == 0
    assert "model.safetensors" in damage(copy)


def test_somebody_elses_folder_is_left_alone(tiny_folder, tmp_path, predictions, data_root, capsys):
    """Catches a README of ours over that of a base model."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    before = sorted(path.name for path in folder.iterdir())
    assert evaluated(folder, predictions, data_root) == 1
    assert "no folder that a merge wrote" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_is_undefined_is_not_zero(copy):
    """A constant prediction has no correlation. Catches 0.000 or nan on the page."""
    found = {"quality": {"srcc": float("nan"), "plcc": None, "krcc": 0.5, "n": 5}}
    test = {
        "data": "x",
        "synthetic": True,
        "part": "eval",
        "videos": 5,
        "faces": None,
        "faces_in_training": None,
        "protocol": None,
        "split_sha256": None,
        "decoders": [],
        "predictions_sha256": "0" * 64,
        "figures": found,
    }
    add_test(copy, test)
    assert "| undefined / undefined / 0.500 |" in (copy / README).read_text()
    metrics = ModelCard.load(copy / README).data.eval_results
    assert not metrics


def test_a_synthetic_training_set_is_said_first(copy):
    """Catches a toy that is taken for a judge of real generators."""
    record = read_card(copy)
    record["stages"][0]["data"]["synthetic"] = True
    card.write_card(copy, record)
    page = (copy / README).read_text()
    assert page.index("judges drawn faces alone") < page.index("## What it gives")
    assert "no photograph of anybody" in page
