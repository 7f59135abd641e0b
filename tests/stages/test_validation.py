"""Validation of the three stages on the val lists beside their train lists."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch import nn

from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.annotations.fixations import Fixations, write_fixations, write_saliency_png
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.config import (
    Config,
    DataSettings,
    FrameSettings,
    LoraSettings,
    SaliencySettings,
    ScoreSettings,
    TextSettings,
)
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.stages import run as runs
from lmme3dhf.stages import score as score_stage
from lmme3dhf.stages.saliency import SaliencyLoss, train_saliency
from lmme3dhf.stages.score import ScoreLoss, read_scores, train_score
from lmme3dhf.stages.text import train_text
from lmme3dhf.training import TrainingError
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import DIMENSIONS, random_frames

VIDEOS = {
    "train": [f"seed{n:04d}" for n in range(4)],
    "val": [f"seed{n:04d}" for n in range(4, 9)],
}
MOS = dict(zip(VIDEOS["train"] + VIDEOS["val"], (10, 80, 30, 60, 20, 90, 45, 70, 35), strict=True))


def write_lists(root: Path, part: str, mos: dict[str, float]) -> None:
    """Lists of a part with levels and answers that follow from the scores."""
    for dimension in DIMENSIONS:
        for kind in ("text", "numerical"):
            samples = []
            for video in VIDEOS[part]:
                level = LEVELS[int(mos[video] // 20)]
                scored = [mos[video]] if kind == "numerical" else []
                samples.append(
                    Sample(
                        video=video,
                        path=root / "video_RGB" / f"{video}.mp4",
                        task=dimension,
                        prompt=PROMPTS[dimension],
                        reply=level_reply(GEN3DHF[dimension], level, *scored),
                    )
                )
            write_list(root / kind / f"{part}_{dimension}.json", samples)
    answers = []
    for video in VIDEOS[part]:
        named = DISTORTIONS[: 1 + int(mos[video] // 40)]
        answers.append(
            Sample(
                video=video,
                path=root / "video_RGB" / f"{video}.mp4",
                task="distortion",
                prompt=PROMPTS["distortion"],
                reply=distortion_reply(named),
                distortions=named,
            )
        )
    write_list(root / "distortion" / f"{part}.json", answers)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Nine clips of noise with labels and maps."""
    root = tmp_path_factory.mktemp("validation") / "data"
    (root / "video_RGB").mkdir(parents=True)
    (root / "saliency_map").mkdir()
    for number, video in enumerate(MOS):
        frames = random_frames(number, 8, 84, 84).permute(0, 2, 3, 1).numpy()
        write_clip(root / "video_RGB" / f"{video}.mp4", list(frames), fps=2)
        strip = np.zeros((84, 252))
        strip[20:40, 30 * number % 200 : 30 * number % 200 + 30] = number % 3
        write_saliency_png(root / "saliency_map" / f"{video}.png", strip / 2)
    for part in VIDEOS:
        write_lists(root, part, MOS)
    return root


TRAINER = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
}


@pytest.fixture
def config(data, tiny_folder) -> Config:
    return Config(
        model=str(tiny_folder),
        dtype="float32",
        frames=FrameSettings(frames=4, min_pixels=56 * 56, max_pixels=56 * 56),
        lora=LoraSettings(rank=4, dropout=0.1),
        data=DataSettings(root=data, workers=0),
        text=TextSettings(trainer=TRAINER),
        score=ScoreSettings(trainer=TRAINER, language_weight=0.5),
        saliency=SaliencySettings(trainer=TRAINER),
    )


def with_trainer(config: Config, **changes) -> Config:
    """Settings of stage 2 with more fields."""
    return replace(config, score=replace(config.score, trainer=TRAINER | changes))


def validations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def predicted(monkeypatch) -> list[list[list[float]]]:
    """The rows of each validation of scores."""
    seen: list[list[list[float]]] = []
    measures = score_stage.ScoreLoss.measures

    def watched(self, rows: list[list[float]]) -> dict[str, float]:
        seen.append(rows)
        return measures(self, rows)

    monkeypatch.setattr(score_stage.ScoreLoss, "measures", watched)
    return seen


def test_the_lists_beside_the_train_lists():
    """Catches a folder whose name is changed, and a list that is not of train."""
    lists = ["text/train_quality.json", "train/distortion/train.json", "own/all.json"]
    assert runs.validation_lists(lists) == ["text/val_quality.json", "train/distortion/val.json"]


def test_scores_are_validated_as_the_merged_model_scores(config, data, tmp_path):
    """By other code: the merged model on the val lists. Catches dropout, training clips, labels of
    another clip, and dimensions that are mixed.
    """
    run = train_score(config, tmp_path / "run")
    rows = validations(run)
    assert [row["epoch"] for row in rows] == [1.0, 2.0, 3.0]
    runs.merge_run(run)
    lists = [f"numerical/val_{dimension}.json" for dimension in DIMENSIONS]
    scores = read_scores(config, run / "merged", lists)
    for dimension in DIMENSIONS:
        ours = [scores[video, dimension] for video in VIDEOS["val"]]
        expected = stats.spearmanr(ours, [MOS[video] for video in VIDEOS["val"]]).statistic
        assert rows[-1][f"srcc_{dimension}"] == pytest.approx(expected)
    assert rows[-1]["srcc"] == pytest.approx(
        np.mean([rows[-1][f"srcc_{dimension}"] for dimension in DIMENSIONS])
    )
    errors = [abs(scores[video, d] - MOS[video]) / 100 for video, d in scores]
    # The rest is the language loss, which is above 0.
    assert rows[-1]["loss"] > np.mean(errors)


def test_validation_leaves_the_stage_as_it_is(config, data, tmp_path, predicted):
    """Other labels of val, and no validation at all: the same weights and losses, and other labels
    give the same scores. Catches random numbers that are drawn, and a score that reads the label
    from the reply that stands in the input for the language loss.
    """
    run = train_score(config, tmp_path / "run")
    off = train_score(with_trainer(config, eval_strategy="no"), tmp_path / "off")
    assert not (off / "validation.jsonl").exists()
    write_lists(data, "val", {video: 100 - mos for video, mos in MOS.items()})
    try:
        other = train_score(config, tmp_path / "other")
    finally:
        write_lists(data, "val", MOS)
    for again in (off, other):
        assert_equal(adapter(run / "adapter"), adapter(again / "adapter"))
        assert (run / "losses.jsonl").read_bytes() == (again / "losses.jsonl").read_bytes()
    assert validations(run) != validations(other)
    scores = [
        [[row[:2] for row in rows] for rows in part] for part in (predicted[:3], predicted[3:])
    ]
    assert scores[0] == scores[1]
    assert {len(rows) for rows in predicted} == {2 * len(VIDEOS["val"])}


def test_the_best_epochs_adapter_and_head_are_kept(config, tmp_path, monkeypatch):
    """Killed in the last epoch, which is not the best, and run again it is the same.
    Catches a head (`modules_to_save`) of another epoch than its adapter.
    """
    chosen = {
        "load_best_model_at_end": True,
        "save_total_limit": 1,
    }
    config = with_trainer(config, **chosen)
    run = train_score(config, tmp_path / "run")
    rows = validations(run)
    (best,) = [row for row in rows if row.get("selected")]
    assert best["loss"] == min(row["loss"] for row in rows)
    assert best["step"] < rows[-1]["step"]
    kept = adapter(run / "adapter")
    assert_equal(kept, adapter(run / "checkpoints" / f"checkpoint-{best['step']}"))
    last = adapter(run / "checkpoints" / f"checkpoint-{rows[-1]['step']}")
    heads = [name for name in kept if "heads.score" in name]
    assert heads
    assert not any(torch.equal(kept[name], last[name]) for name in heads if "weight" in name)

    sums, steps = ScoreLoss.sums, []

    def dying(self, model: nn.Module, batch: dict) -> torch.Tensor:
        steps.append(batch)
        if len(steps) == 6:
            raise RuntimeError("killed")
        return sums(self, model, batch)

    monkeypatch.setattr(ScoreLoss, "sums", dying)
    with pytest.raises(RuntimeError, match="killed"):
        train_score(config, tmp_path / "killed")
    monkeypatch.undo()
    again = train_score(config, tmp_path / "killed")
    assert_equal(kept, adapter(again / "adapter"))
    assert (run / "validation.jsonl").read_bytes() == (again / "validation.jsonl").read_bytes()


def test_a_head_alone_is_validated(config, tmp_path):
    """Catches states of the val clips that are not computed."""
    alone = replace(config, lora=replace(config.lora, language=False))
    rows = validations(train_score(alone, tmp_path / "run"))
    assert len(rows) == 3
    assert set(rows[0]) == {"step", "epoch", "loss", "srcc", *(f"srcc_{d}" for d in DIMENSIONS)}
    assert all(row["loss"] > 0 for row in rows)


def test_stage_1_is_validated_on_all_its_lists(config, tmp_path):
    """Catches answers that are left out: a stage without them has another loss."""
    rows = validations(train_text(config, tmp_path / "run"))
    assert [set(row) for row in rows] == [{"step", "epoch", "loss"}] * 3
    few = replace(config, text=replace(config.text, lists=config.text.lists[:2]))
    assert validations(train_text(few, tmp_path / "few"))[0]["loss"] != rows[0]["loss"]


def test_stage_3_is_validated_by_its_terms(config, tmp_path):
    """Their weighted sum is the loss where every clip has marks; here some have none."""
    rows = validations(train_saliency(config, tmp_path / "run"))
    assert [set(row) for row in rows] == [{"step", "epoch", "loss", "l1", "cc", "kl", "bce"}] * 3
    assert all(-1 <= row["cc"] <= 1 for row in rows)


def test_clips_that_no_marker_looked_at_are_left_out_of_stage_3(config, data, tmp_path, capsys):
    """One of each part; a clip without points is clean and stays. Catches a clip that is trained
    on as one without distortions, and one that goes silently.
    """
    root = tmp_path / "data"
    shutil.copytree(data, root)
    absent = VIDEOS["train"][1], VIDEOS["val"][2]
    for video in absent:
        (root / "saliency_map" / f"{video}.png").unlink()
    seen = [video for video in MOS if video not in absent]
    write_fixations(root / "fixations.json", {video: Fixations((), {"a": 0}) for video in seen})
    brief = SaliencySettings(trainer=TRAINER | {"num_train_epochs": 1})
    config = replace(config, data=replace(config.data, root=root), saliency=brief)
    rows = validations(train_saliency(config, tmp_path / "run"))
    assert len(rows) == 1
    said = capsys.readouterr().out.splitlines()
    for count, video in zip((4, 5), absent, strict=True):
        assert any(line.startswith(f"1 of {count} ") and video in line for line in said)
    for video in VIDEOS["val"]:
        (root / "saliency_map" / f"{video}.png").unlink(missing_ok=True)
    trained = {video: Fixations((), {"a": 0}) for video in VIDEOS["train"]}
    write_fixations(root / "fixations.json", trained)
    with pytest.raises(DataError, match="no marker looked at any of the validation"):
        train_saliency(config, tmp_path / "none")


def test_saliency_terms_are_what_they_are_called():
    """CC by numpy, on a clip with marks beside one without. Catches a mean that counts the clip for
    which CC is not defined.
    """
    torch.manual_seed(0)
    predicted, target = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    target[1] = 0
    batch = {"hidden": predicted, "taps": None, "target": target}
    loss = SaliencyLoss((1.0, 0.4, 0.2, 1.0))
    sums, rows = loss.judge(lambda hidden, taps: hidden, batch, ["a", "b"])
    assert torch.equal(sums, loss.sums(lambda hidden, taps: hidden, batch))
    found = loss.measures(rows)
    expected = np.corrcoef(predicted[0].flatten(), target[0].flatten())[0, 1]
    assert found["cc"] == pytest.approx(expected, abs=1e-5)
    assert found["l1"] == pytest.approx((predicted - target).abs().mean().item(), rel=1e-5)
    only = loss.measures(rows[1:])
    assert np.isnan(only["cc"])
    assert np.isnan(only["kl"])


def without(data: Path, tmp_path: Path, *gone: str) -> Path:
    """A copy of the data set without some files."""
    root = Path(shutil.copytree(data, tmp_path / "copy", ignore=lambda *_: ["features"]))
    for part in VIDEOS:
        write_lists(root, part, MOS)
    for name in gone:
        (root / name).unlink()
    return root


def test_a_data_set_without_val_is_trained_without_validation(config, data, tmp_path, capsys):
    """Catches an error, and a silence."""
    gone = ("text/val_quality.json", "text/val_authenticity.json", "distortion/val.json")
    root = without(data, tmp_path, *gone)
    config = replace(config, data=replace(config.data, root=root))
    run = train_text(config, tmp_path / "run")
    assert not (run / "validation.jsonl").exists()
    (line,) = [li for li in capsys.readouterr().out.splitlines() if "no validation" in li]
    assert all(name in line for name in gone)
    best = replace(config, text=TextSettings(trainer={"load_best_model_at_end": True}))
    with pytest.raises(TrainingError, match="need validation"):
        train_text(best, tmp_path / "best")


def test_a_missing_val_clip_is_named_with_the_way_out(config, data, tmp_path):
    """Who has only the training clips can train. Catches an error that blames the training data."""
    root = without(data, tmp_path, "video_RGB/seed0006.mp4")
    config = replace(config, data=replace(config.data, root=root))
    with pytest.raises(DataError, match=r"seed0006\.mp4.*eval_strategy: no"):
        train_text(config, tmp_path / "run")
    off = replace(config, text=TextSettings(trainer=TRAINER | {"eval_strategy": "no"}))
    assert (train_text(off, tmp_path / "off") / "adapter").is_dir()
