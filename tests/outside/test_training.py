"""Other aspects, images, two rounds, and a head and a loss of one's own: from a table of images to
a scored folder, through the command line, without a change of the package.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lmme3dhf import Scorer
from lmme3dhf.cli import main
from lmme3dhf.models.heads import HEADS
from lmme3dhf.training.losses import LOSSES

IMAGES = 8
ASPECTS = {
    "realism": {
        "prompt": "How real is {subject}?",
        "answer_prefix": "The {aspect} is",
        "scale": {
            "minimum": 1,
            "maximum": 5,
            "levels": ["low", "fair", "high"],
            "edges": [1, 2, 4, 5],
        },
        "before": [{"prompt": "Describe {subject}.", "slot": "description"}],
    },
    "noise": {
        "prompt": "Rate the noise.",
        "answer_prefix": "The {aspect} is",
        "scale": {"minimum": 0, "maximum": 10, "higher_is_better": False, "levels": []},
    },
}
PLUGIN = '''
import torch
from torch import nn
from lmme3dhf.models.heads import HEADS
from lmme3dhf.training.losses import LOSSES

class Pair(nn.Module):
    """Both aspects and an output that nobody rates, from one layer."""
    def __init__(self, *, hidden_size, outputs, start=0.5):
        super().__init__()
        self.outputs, self.start = outputs, start
        self.layer = nn.Linear(hidden_size, len(outputs))
        self.reset_parameters()
    def reset_parameters(self):
        nn.init.normal_(self.layer.weight, std=0.02)
        nn.init.constant_(self.layer.bias, self.start)
    def forward(self, hidden):
        return dict(zip(self.outputs, self.layer(hidden.float()).unbind(-1)))

def cauchy(prediction, target, *, width=1.0):
    return torch.log1p(((prediction - target) / width) ** 2)

HEADS["pair"] = Pair
LOSSES["cauchy"] = cauchy
'''
SETTINGS = {
    "dtype": "float32",
    "threads": 1,
    "frames": {"frames": 2, "min_pixels": 56 * 56, "max_pixels": 56 * 56, "images": True},
    "lora": {"rank": 2, "dropout": 0.0},
    "data": {"root": "data", "video_root": "images", "workers": 0},
    "text": {
        "lists": ["table:ratings.csv"],
        "trainer": {"max_steps": 2, "per_device_train_batch_size": 4, "eval_strategy": "no"},
    },
    "score": {
        "lists": ["table:ratings.csv"],
        "heads": {
            "pair": {"kind": "pair", "outputs": ["realism", "noise", "doubt"], "start": 0.25},
            "score": {"kind": "mlp", "widths": [8]},
            "voter": {"kind": "mlp", "over": ["pair", "score"], "widths": []},
        },
        "losses": {"cauchy": {"weight": 2.0, "width": 0.5}, "mse": 1.0},
        "trainer": {"max_steps": 3, "per_device_train_batch_size": 4, "eval_strategy": "no"},
    },
}


@pytest.fixture(scope="module")
def job(tiny_folder, tmp_path_factory) -> Path:
    """A folder of a user's with everything trained, merged and scored."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "images").mkdir()
    (folder / "data").mkdir()
    (folder / "mine_pair.py").write_text(PLUGIN)
    (folder / "data" / "aspects.yaml").write_text(yaml.safe_dump(ASPECTS, sort_keys=False))
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    rows = ["path,realism,noise,subject,description"]
    rng = np.random.default_rng(0)
    for n in range(IMAGES):
        pixels = rng.integers(0, 256, (84, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
        noise = "" if n == 3 else str(n)  # one that nobody rated
        rows.append(f"{n}.png,{1 + n / 2},{noise},face {n},It is number {n}.")
    (folder / "data" / "ratings.csv").write_text("\n".join(rows) + "\n")
    plugin, settings = ["--plugin", "mine_pair"], ["--config", "settings.yaml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        model = str(tiny_folder)
        for stage in ("text", "score"):
            words = ["train", stage, "--out", stage, "--model", model, *settings]
            assert main([*plugin, *words]) == 0
            assert main([*plugin, "merge", stage]) == 0
            model = f"{stage}/merged"
        yield folder
    for known, name in ((HEADS, "pair"), (LOSSES, "cauchy")):
        known.pop(name, None)
    sys.modules.pop("mine_pair", None)


def test_losses_are_finite_and_named_parts_are_stored(job):
    """Catches a head that is not trained, or not merged."""
    lines = (job / "score" / "losses.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in lines]
    assert all(math.isfinite(row["loss"]) for row in losses)
    metric = json.loads((job / "score" / "merged" / "config.json").read_text())["metric"]
    assert [aspect["name"] for aspect in metric["aspects"]] == ["realism", "noise"]
    assert [head["name"] for head in metric["heads"]] == ["pair", "score", "voter"]
    assert metric["aspects"][0]["scale"]["edges"] == [1, 2, 4, 5]
    assert metric["frames"]["images"] is True


def test_an_image_is_scored_on_the_scales_of_its_aspects(job):
    """The first head with an aspect gives its score, all are told; by hand from the hidden state.
    Catches another scale, a voter that is fed otherwise, and a missing round.
    """
    scorer = Scorer.from_pretrained(job / "score" / "merged", workers=0)
    image = job / "images" / "2.png"
    given = {"subject": "face 2", "description": "It is number 2."}
    found = scorer.score(image, slots=given, answers=None)
    assert list(found.ratings) == ["realism", "noise"]
    assert found.ratings["realism"].level in ("low", "fair", "high")
    assert found.ratings["realism"].text == "It is number 2."
    assert found.ratings["noise"].level is None
    for rating in found.ratings.values():
        assert list(rating.by_head) == ["pair", "score", "voter"]
        assert rating.score == rating.by_head["pair"]
    # Without its reply the model describes the image itself, and reads that.
    own = scorer.score(image, slots={"subject": "face 2"}, answers=None)
    again = scorer.score(
        image, slots={"subject": "face 2", "description": own.ratings["realism"].text}, answers=None
    )
    assert own.ratings["realism"].score == pytest.approx(again.ratings["realism"].score, abs=1e-4)
    other = scorer.score(image, slots={**given, "description": "Another thing."}, answers=None)
    assert other.ratings["realism"].score != found.ratings["realism"].score
    assert other.ratings["noise"].score == pytest.approx(found.ratings["noise"].score, abs=1e-4)


def test_images_are_the_librarys(job):
    """The hidden state behind a score against the stock class with an image. Catches positions,
    placeholders or pixels of a video.
    """
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = job / "score" / "merged"
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    scorer = Scorer.from_pretrained(folder, workers=0)
    image = Image.open(job / "images" / "1.png").resize((56, 56), Image.Resampling.BICUBIC)
    found = scorer.score(
        np.asarray(image), slots={"subject": "x", "description": "y"}, answers=None
    )
    content = [{"type": "image"}, {"type": "text", "text": "Rate the noise."}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(
        text=[text + "The noise is"], images=[image], do_resize=False, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = stock(**inputs, output_hidden_states=True).hidden_states[-1][:, -1]
        unit = scorer.model.heads["pair"](hidden)["noise"]
    assert found.ratings["noise"].score == pytest.approx(10 * float(unit), abs=1e-3)


def test_an_unknown_head_names_the_way_out(job, capsys):
    """Catches a traceback where the plugin is forgotten."""
    taken = HEADS.pop("pair")
    try:
        words = ["--model", "score/merged", "--out", "none.csv", "images/1.png"]
        assert main(["score", *words]) == 1
    finally:
        HEADS["pair"] = taken
    message = capsys.readouterr().err
    assert "pair" in message
    assert "--plugin" in message
