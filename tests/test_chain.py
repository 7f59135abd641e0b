"""The whole chain, in process, on the shipped tiny base and a small synthetic data set.

One run of the main job serves all tests of this file; what differs from `bash scripts/demo.sh` is
the number of faces. The full job with its targets is the slow test at the end.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmme3dhf import Scorer
from lmme3dhf.cli import main
from lmme3dhf.config import load_config
from lmme3dhf.data.container import REASONS
from lmme3dhf.files import damage
from lmme3dhf.models.merge import REPORT
from lmme3dhf.predictions import read_predictions
from lmme3dhf.scores import read_scores
from lmme3dhf.vocabulary import DISTORTIONS
from tests.conftest import shared_data

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "configs" / "demo.yaml"
SMALL = ["--synthetic.latents", "12", "--data.workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    """A finished main job on 120 clips."""
    out = tmp_path_factory.mktemp("chain") / "demo"
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    return out


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    assert tensors
    return tensors


def _stage_arguments(job: Path, model: Path) -> list[str]:
    return ["--config", str(job / "config.yaml"), "--model", str(model)]


def test_summary_holds_every_figure_of_the_issue(job):
    """Catches a figure that is not computed any more, and one that is typed in: they are finite."""
    summary = json.loads((job / "summary.json").read_text())
    for dimension in ("quality", "authenticity"):
        assert {"srcc", "plcc", "krcc", "ceiling"} <= set(summary[dimension])
        assert 0.8 < summary[dimension]["ceiling"] <= 1
    assert {"accuracy", "majority"} <= set(summary["level"])
    assert {"accuracy", "majority", "recall"} <= set(summary["distortion"])
    assert set(summary["distortion"]["recall"]) == set(DISTORTIONS)
    assert {"cc", "mean_map_cc", "auc"} <= set(summary["saliency"])
    assert summary["seconds"] > 0
    assert summary["peak_rss_mb"] > 100


def test_the_page_shows_its_pictures(job):
    """Catches links to pictures that were not drawn."""
    page = (job / "report.md").read_text()
    shown = [line.split("](")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(shown) == 4
    for picture in shown:
        assert (job / picture).stat().st_size > 5_000


def test_the_stages_learn(job):
    """Ninety training clips are few, but far from chance; catches a head, an answer or a map that
    does not learn at all. Bounds are well below what was seen (README); the full job is slow."""
    summary = json.loads((job / "summary.json").read_text())
    assert summary["quality"]["srcc"] > 0.4
    assert summary["authenticity"]["srcc"] > 0.4
    assert summary["distortion"]["accuracy"] > summary["distortion"]["majority"] + 0.1
    assert summary["saliency"]["auc"] > 0.75


def test_a_second_run_does_nothing_again(job, capsys):
    """Catches steps that are repeated, and finished weights that are written anew."""
    watched = [job / "model" / "model.safetensors", job / "stage1" / "adapter", job / "data"]
    before = [path.stat().st_mtime_ns for path in watched]
    assert main(["demo", "--out", str(job), *SMALL]) == 0
    assert [path.stat().st_mtime_ns for path in watched] == before
    # All but the report, whose figures are made anew from predictions and labels.
    assert capsys.readouterr().out.count("done before") == 6


def test_another_setting_needs_another_folder(job, capsys):
    """Catches results of two settings mixed in one folder."""
    assert main(["demo", "--out", str(job), *SMALL, "--seed", "7"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_frozen_weights_are_bit_equal_after_each_stage(job):
    """Catches training that reaches the tower, the embeddings or the norms; merged weights differ
    from the base in the adapted layers alone, and each stage adds its own part."""
    base = _weights(ROOT / "lmme3dhf" / "models" / "tiny_base")
    one, two, all_in_one = (_weights(job / f) for f in ("stage1/merged", "stage2/merged", "model"))

    def differing(a, b):
        return {
            name for name in set(a) & set(b) if not torch.equal(a[name].float(), b[name].float())
        }

    projections = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    adapted = {name for name in base if name.endswith(tuple(f"{p}.weight" for p in projections))}
    adapted = {name for name in adapted if "visual" not in name}
    assert len(adapted) == 4 * 7
    assert differing(base, one) == adapted
    assert set(one) == set(base)
    assert differing(one, two) == adapted
    assert differing(two, all_in_one) == set()
    for new, part in (
        (set(two) - set(one), "heads.score."),
        (set(all_in_one) - set(two), "saliency_decoder."),
    ):
        assert new
        assert all(name.startswith(part) for name in new)


def test_the_models_card_tells_the_figures(job):
    """Catches a finished folder without them, with others than the summary's, or one that its
    manifest calls damaged.
    """
    summary = json.loads((job / "summary.json").read_text())
    page = (job / "model" / "README.md").read_text()
    for dimension in ("quality", "authenticity"):
        shown = " / ".join(f"{summary[dimension][key]:.3f}" for key in ("srcc", "plcc", "krcc"))
        assert f"| {dimension}: SRCC / PLCC / KRCC | {shown} |" in page
    metric = json.loads((job / "model" / "metric.json").read_text())
    training = metric["dimensions"]["quality"]["training"]
    assert training["videos"] == summary["test"]["train_videos"]
    assert metric["saliency"]
    assert "judges drawn faces alone" in page
    assert str(job) not in page
    assert damage(job / "model") is None


def test_merging_changed_nothing(job):
    """The figure beside the weights is within the limit for float32."""
    for folder in ("stage1/merged", "stage2/merged", "model"):
        report = json.loads((job / folder / REPORT).read_text())
        assert report["dtype"] == "float32"
        assert report["relative_difference"] <= 1e-5
        assert report["samples"] == 16


def test_scores_do_not_depend_on_the_replies(job, tmp_path):
    """The released evaluation reads the label out of the reply. Here every reply is replaced by
    nonsense, and the scores stay bit-equal."""
    honest = job / "data" / "numerical" / "eval_quality.json"
    rows = json.loads(honest.read_text())[:6]
    (tmp_path / "honest.json").write_text(json.dumps(rows))
    for index, row in enumerate(rows):
        row["messages"][1]["content"] = f"bananas are excellent ({index * 17}.5)"
    (tmp_path / "nonsense.json").write_text(json.dumps(rows))
    scores = []
    for name in ("honest", "nonsense"):
        out = tmp_path / f"{name}.jsonl"
        arguments = ["--model", str(job / "model"), "--data", str(tmp_path / f"{name}.json")]
        arguments += ["--video_root", str(job / "data" / "video_RGB"), "--out", str(out)]
        assert main(["predict", *arguments]) == 0
        scores.append([(p.video, p.score, p.level_probabilities) for p in read_predictions(out)])
    assert len(scores[0]) == 6
    assert scores[0] == scores[1]


def test_batch_size_and_neighbours_do_not_change_scores(job):
    """Catches padding that is attended to, and features that leak between clips."""
    clips = sorted((job / "data" / "video_RGB").glob("*.mp4"))[:5]
    one, four = (Scorer.from_pretrained(job / "model", batch_size=size) for size in (1, 4))
    alone = [result.quality.score for result in one.assess(clips, maps=False)]
    together = [result.quality.score for result in four.assess(clips, maps=False)]
    turned = [result.quality.score for result in four.assess(clips[::-1], maps=False)][::-1]
    # On the scale 0 to 100; what is left are the last bits of float32.
    assert together == pytest.approx(alone, abs=1e-4)
    assert turned == pytest.approx(alone, abs=1e-4)


def test_evaluate_scripts_print_what_the_summary_says(job, tmp_path, capsys):
    """Catches a second, different way to compute the same figure."""
    data, model = job / "data", str(job / "model")
    common = ["--model", model, "--video_root", str(data / "video_RGB")]
    lists = [str(data / "numerical" / f"eval_{d}.json") for d in ("quality", "authenticity")]
    out = tmp_path / "precise.jsonl"
    arguments = ["--data", *lists, "--out", str(out), "--evaluate", "true", "--maps", "false"]
    assert main(["predict", *common, *arguments]) == 0
    figures = json.loads(out.with_suffix(".metrics.json").read_text())
    summary = json.loads((job / "summary.json").read_text())
    assert figures["quality"] == pytest.approx(
        {k: v for k, v in summary["quality"].items() if k != "ceiling"}
    )
    assert figures["level"]["accuracy"] == summary["level"]["accuracy"]


def test_a_killed_stage_ends_like_one_that_was_not(job, tmp_path):
    """SIGKILL after the first checkpoint, then the same command again: weights bit-equal, the same
    losses. Catches optimiser, order or dropout that start anew."""
    arguments = [
        *_stage_arguments(job, job / "stage1" / "merged"),
        *("--lora.dropout", "0.1", "--score.trainer.num_train_epochs", "1"),
        *("--score.trainer.save_steps", "4", "--score.trainer.per_device_train_batch_size", "16"),
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["train", "score", "--out", str(whole), *arguments]) == 0
    command = [sys.executable, "-m", "lmme3dhf.cli", "train", "score", "--out", str(broken)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(broken.glob("checkpoints/checkpoint-*/manifest.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "adapter").exists()
    again = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    assert (broken / "losses.jsonl").read_text() == (whole / "losses.jsonl").read_text()
    for name, tensor in load_file(whole / "adapter" / "adapter_model.safetensors").items():
        assert torch.equal(
            tensor, load_file(broken / "adapter" / "adapter_model.safetensors")[name]
        ), name


def test_a_diverging_run_stops_with_the_samples_named(job, tmp_path, capsys):
    """A learning rate beyond all reason: plain Trainer would go on, log 0 and save NaN weights."""
    arguments = [
        *_stage_arguments(job, job / "stage1" / "merged"),
        *("--score.trainer.learning_rate", "1e30", "--score.trainer.save_steps", "1"),
        *("--score.trainer.max_grad_norm", "0", "--score.trainer.warmup_steps", "0"),
    ]
    run = tmp_path / "diverging"
    assert main(["train", "score", "--out", str(run), *arguments]) == 1
    message = capsys.readouterr().err
    assert "is not finite" in message or ("the loss is" in message and "seed" in message)
    saved = sorted(run.glob("checkpoints/checkpoint-*/adapter_model.safetensors"))
    assert saved
    for path in saved:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())


def test_real_clips_get_scores_and_odd_files_a_row_each(job, tmp_path, capsys):
    """Real generators' clips are read and scored; every broken or unusual file gets a row."""
    clips, odd = shared_data("clips"), shared_data("odd")
    out = tmp_path / "scores.csv"
    status = main(["score", str(clips), str(odd), "--model", str(job / "model"), "--out", str(out)])
    assert status == 3
    rows = read_scores(out)
    assert len(rows) == len(list(clips.iterdir())) + len(list(odd.iterdir()))
    for row in rows:
        assert row.status == "ok" or (row.reason in REASONS and row.message)
    assert all(row.status == "ok" for row in rows if "/clips/" in row.file)
    assert "Traceback" not in capsys.readouterr().err


def test_the_python_interface(job):
    """The two lines of the README; catches a map of another size than the clip's views."""
    clip = next((job / "data" / "video_RGB").glob("*.mp4"))
    result = Scorer.from_pretrained(job / "model").score(clip)
    assert 0 < result.quality.score < 100
    assert sum(result.quality.level_probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert result.saliency.shape == (112, 336)
    assert 0 <= result.saliency.min() <= result.saliency.max() <= 1


def test_vision_adapters_train_from_pixels(job, tmp_path):
    """Table 5 row 6: adapters in the tower too; features cannot be stored then, and merging still
    equals."""
    arguments = [
        *_stage_arguments(job, ROOT / "lmme3dhf" / "models" / "tiny_base"),
        *(
            "--lora.vision",
            "true",
            "--text.trainer.max_steps",
            "2",
            "--text.trainer.save_steps",
            "1",
        ),
        *("--text.trainer.gradient_checkpointing", "true"),
    ]
    run = tmp_path / "vision"
    assert main(["train", "text", "--out", str(run), *arguments]) == 0
    assert main(["merge", str(run)]) == 0
    base, merged = _weights(ROOT / "lmme3dhf" / "models" / "tiny_base"), _weights(run / "merged")
    name = "visual.blocks.0.attn.qkv.weight"
    assert not torch.equal(base[name].float(), merged[name])
    assert torch.equal(
        base["visual.patch_embed.proj.weight"].float(), merged["visual.patch_embed.proj.weight"]
    )


def test_a_run_is_not_merged_into_another_base(job, tmp_path, capsys):
    """Catches an adapter folded into weights that it was not trained on."""
    run = tmp_path / "moved"
    shutil.copytree(job / "stage1", run, ignore=shutil.ignore_patterns("merged", "checkpoints"))
    record = json.loads((run / "run.json").read_text())
    record["model"] = str(job / "stage2" / "merged")
    (run / "run.json").write_text(json.dumps(record))
    assert main(["merge", str(run)]) == 1
    assert "run.json" in capsys.readouterr().err


@pytest.mark.slow
def test_the_full_demo_reaches_its_targets(tmp_path):
    """`bash scripts/demo.sh` with its targets, on faces that no stage has seen."""
    assert main(["demo", "--config", str(DEMO), "--out", str(tmp_path / "demo")]) == 0
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert load_config(DEMO).synthetic.latents >= 50
    for dimension in ("quality", "authenticity"):
        assert summary[dimension]["srcc"] >= 0.80
    assert summary["level"]["accuracy"] >= 0.55
    assert summary["distortion"]["accuracy"] >= summary["distortion"]["majority"] + 0.3
    assert summary["saliency"]["cc"] >= max(0.5, summary["saliency"]["mean_map_cc"] + 0.15)
    assert summary["saliency"]["auc"] >= 0.85
    assert summary["peak_rss_mb"] <= 4096
