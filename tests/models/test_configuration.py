"""The configuration: what it survives, what it refuses, and the geometry that it derives."""

import json

import pytest
from transformers import AutoConfig, Qwen2_5_VLConfig

from lmme3dhf.aspects import Aspect, Scale
from lmme3dhf.models.configuration import (
    HeadConfig,
    LMME3DHFConfig,
    MetricConfig,
    SaliencyConfig,
)
from lmme3dhf.models.heads.mlp import published_head

FULL = MetricConfig(
    aspects={
        "fit": Aspect(
            name="fit",
            prompt="Does it fit?",
            answer_prefix="The {aspect} is",
            scale=Scale(minimum=1, maximum=5, levels=("low", "high"), tokens=(5, 4)),
        )
    },
    heads={"pair": HeadConfig(outputs=("fit", "spread"), options={"widths": [64, 16]})},
    saliency=SaliencyConfig(taps=(5, 3, 1), width=32),
    frames={"fps": 2.0, "frames": None},
)


def test_published_head_scales_with_the_hidden_size():
    """By hand: 1024 * 128 / 3584 = 36.6, and the others fall below the smallest layer. Catches a
    fixed geometry, and layers that shrink to nothing.
    """
    assert published_head(3584) == (1024, 256, 64, 16)
    assert published_head(7168) == (2048, 512, 128, 32)
    assert published_head(128) == (37, 16, 16, 16)


def test_saliency_geometry_of_both_backbones():
    """By hand, from the depth and width of the 7B and the tiny model. Catches taps that are counted
    from the wrong end, and a width that does not scale.
    """
    assert SaliencyConfig().resolved(32, 3584) == SaliencyConfig(taps=(31, 16, 6), width=256)
    assert SaliencyConfig().resolved(6, 128) == SaliencyConfig(taps=(5, 3, 1), width=32)
    chosen = SaliencyConfig(taps=(4, 2, 0), width=48)
    assert chosen.resolved(6, 128) == chosen


@pytest.mark.parametrize("taps", [(6, 3, 1), (5, 3), (5, 3, -1), (5, 4, 3, 2)])
def test_saliency_refuses_blocks_that_do_not_exist(taps):
    """Catches an index beyond the tower, which would fail deep inside a forward pass, and one that
    counts from the end, which would silently read another block.
    """
    with pytest.raises(ValueError, match=r"saliency\.taps.*below 6"):
        SaliencyConfig(taps=taps).resolved(6, 128)


def test_metric_survives_json():
    """Catches tuples that come back as lists (and compare unequal), and a nested section that stays
    a dictionary.
    """
    assert MetricConfig.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL
    assert MetricConfig.from_dict(MetricConfig().to_dict()) == MetricConfig()


def test_metric_refuses_what_it_does_not_know():
    """Catches a misspelt key in config.json, which would leave the default in force."""
    with pytest.raises(ValueError, match="answer_prefx"):
        MetricConfig.from_dict({"answer_prefx": "It is"})


@pytest.mark.parametrize("tokens", [(1, 2, 3, 4), (1, 2, 3, 4, 4), ()])
def test_metric_wants_five_different_level_tokens(tokens):
    """Catches two levels that share their probability, and a list that is too short."""
    with pytest.raises(ValueError, match="tokens"):
        MetricConfig.from_dict({"level_token_ids": list(tokens)})


def test_config_is_read_by_ours_and_as_plain_qwen(tmp_path):
    """Catches a model type of our own, which stock classes, processors and servers would refuse,
    and a metric that is lost on the way to config.json.
    """
    config = LMME3DHFConfig()
    config.set_metric(FULL)
    config.save_pretrained(tmp_path)
    assert LMME3DHFConfig.from_pretrained(tmp_path).get_metric() == FULL
    assert type(AutoConfig.from_pretrained(tmp_path)) is Qwen2_5_VLConfig


def test_plain_config_gets_the_defaults(tmp_path):
    """Catches a plain Qwen2.5-VL folder that does not open, and settings of one configuration that
    leak into the next.
    """
    changed = LMME3DHFConfig()
    changed.set_metric(FULL)
    Qwen2_5_VLConfig().save_pretrained(tmp_path)
    assert LMME3DHFConfig.from_pretrained(tmp_path).get_metric() == MetricConfig()
    assert LMME3DHFConfig().get_metric() == MetricConfig()


def test_a_folder_of_an_earlier_version_is_read():
    """One head and Gen3DHF's two aspects in keys of their own, as in the demo's folder of that
    version. Catches edges, tokens or the read position lost on the way.
    """
    edges = [18.5, 29.5, 40.5, 51.5, 63.5, 74.5]
    metric = MetricConfig.from_dict(
        {
            "answer_prefix": "The {dimension} here is",
            "head": "mlp",
            "head_widths": [32],
            "level_edges": {"quality": edges},
            "level_token_ids": [405, 409, 412, 404, 294],
            "read": "label",
        }
    )
    assert list(metric.aspects) == ["quality", "authenticity"]
    quality, authenticity = metric.aspects.values()
    assert quality.prefix() == "The quality here is"
    assert quality.scale.edges == tuple(edges)
    assert authenticity.scale.edges is None
    assert authenticity.scale.tokens == metric.level_tokens == (405, 409, 412, 404, 294)
    assert metric.heads == {"score": HeadConfig(read="label", options={"widths": [32]})}
    assert MetricConfig.from_dict(metric.to_dict()) == metric
