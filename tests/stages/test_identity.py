"""Which changes of settings and data make another run."""

import json
import os
from pathlib import Path

import pytest

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.config import Config, to_plain, with_settings
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.stages.identity import changes, content_changes, data_content
from lmme3dhf.stages.run import check_trainer
from lmme3dhf.training import TrainingError


def _changed(stage, before, now):
    old, new = (to_plain(with_settings(Config(), given)) for given in (before, now))
    return [set(found) for found in changes(old, new, stage)]


@pytest.mark.parametrize("name", ["threads", "batch_size", "data.workers"])
def test_a_machines_settings_do_not_make_another_run(name):
    """Catches a run that is locked by what decides nothing."""
    assert _changed("score", {}, {name: 1}) == [set(), {name}]


def test_a_smaller_micro_batch_with_the_same_product_is_the_same_run():
    """8 x 1 and 2 x 4 are one step of 8; 2 x 1 is another. Catches comparing the micro-batch."""
    fields = ("per_device_train_batch_size", "gradient_accumulation_steps")
    split = {"hardware": {fields[0]: 2, fields[1]: 4}}
    assert _changed("score", {}, split) == [set(), {f"trainer.{name}" for name in fields}]
    assert _changed("score", {}, {"hardware": {fields[0]: 2}})[0]


def test_more_processes_make_larger_steps():
    """Two processes of 4 are one of 8. Catches a run that goes on with another batch."""
    plain = to_plain(Config())
    half = to_plain(with_settings(Config(), {"hardware": {"per_device_train_batch_size": 4}}))
    assert changes(plain, plain, "score", (1, 2))[0]
    assert not changes(plain, half, "score", (1, 2))[0]


def test_a_list_elsewhere_is_recorded_without_its_folder(tmp_path):
    """What is recorded is published. Catches a home folder in a model's card, and one of two lists
    of the same name that is not compared.
    """
    row = Sample(
        video="seed0001",
        path=tmp_path / "video_RGB" / "seed0001.mp4",
        task="quality",
        prompt=PROMPTS["quality"],
        reply=level_reply(GEN3DHF["quality"], "fair", 50),
    )
    names = ["a/train.json", str(tmp_path / "a/train.json"), str(tmp_path / "b/train.json")]
    for name in names[1:]:
        write_list(Path(name), [row])
    content = data_content(with_settings(Config(), {"data.root": tmp_path}), "score", names)
    assert set(content["lists"]) == {"a/train.json", "train.json", "train.json (2)"}
    assert str(tmp_path) not in json.dumps(content)


def test_a_later_stages_settings_do_not_touch_an_earlier_one():
    """Catches stage 1 refused for a setting of stage 2, and an unknown field that passes."""
    weight = {"score.language_weight": 0.5}
    assert _changed("text", {}, weight) == [set(), set()]
    assert _changed("score", {}, weight) == [{"score.language_weight"}, set()]
    rate = {"text.trainer": {"learning_rate": 0.1}}
    assert _changed("text", {}, rate) == [{"trainer.learning_rate"}, set()]


def test_the_changed_list_is_named_with_its_rows():
    """Catches half a list, and other labels under the same questions, that pass unseen."""
    part = {"rows": 8, "questions": "q", "labels": "l"}
    before = {"lists": {"a.json": part, "b.json": part}, "clips": "c"}
    now = {"lists": {"a.json": part | {"rows": 4}, "b.json": part | {"labels": "m"}}, "clips": "c"}
    found = content_changes(before, now)
    assert len(found) == 2
    assert "a.json: 8 rows before, 4 now" in found[0]
    assert "b.json" in found[1]
    assert "labels" in found[1]
    assert content_changes(before, before) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", "abc"), ("lr_scheduler_type", "cosin"), ("optim", "adamm")],
)
@pytest.mark.parametrize("stage", ["text", "score", "saliency"])
def test_a_wrong_value_is_found_before_anything_is_read(stage, name, value):
    """Catches a typo that is found after hours of features."""
    config = with_settings(Config(), {f"{stage}.trainer": {name: value}})
    with pytest.raises(TrainingError, match=rf"{stage}\.trainer"):
        check_trainer(config, stage)


def test_validating_settings_sets_nothing_up(tmp_path, monkeypatch):
    """Catches a stage that is compiled, or sharded, for another one's settings."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    before = dict(os.environ)
    settings = {"torch_compile": True, "deepspeed": str(tmp_path / "zero3.json")}
    check_trainer(with_settings(Config(), {"score.trainer": settings}), "score")
    assert dict(os.environ) == before
