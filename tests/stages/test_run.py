"""What a stage keeps for its merge: a probe, and the form of the folder that is asked for."""

import pytest
import torch
from safetensors.torch import save_file

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.collation import Collator, packed_item
from lmme3dhf.data.dialogue import level_token_ids, with_tokens
from lmme3dhf.models.configuration import HeadConfig, MetricConfig
from lmme3dhf.stages import run as runs
from lmme3dhf.vocabulary import LEVELS
from tests.models.conftest import PREFIX, asked, noise


def test_a_probe_is_spread_over_the_data():
    """Catches the first clips of a list, which are one face or one generator."""
    assert runs.spread(range(1600)) == list(range(0, 1600, 100))
    assert runs.spread("abc") == ["a", "b", "c"]
    assert runs.spread([]) == []


@pytest.fixture
def items(processor):
    """Nineteen clips; of each the level is learnt, and with it a word that is no level."""
    shapes = ((2, 56, 84), (2, 84, 56))
    return [
        packed_item(
            [asked(processor, reply=f"{PREFIX} good", prefix=PREFIX, mos=0.5)],
            noise(processor, i, shapes[i % 2]),
        )
        for i in range(19)
    ]


@pytest.mark.parametrize("read", ["answer", "label"])
def test_a_probe_comes_back_with_the_reads_of_its_levels(processor, items, tmp_path, read):
    """Sixteen of nineteen clips in batches of four. Catches level reads that are the scored reads
    where the score is read elsewhere, targets in the probe, and batches in another order.
    """
    tokens = level_token_ids(processor.tokenizer, PREFIX, LEVELS)
    metric = MetricConfig(
        aspects=with_tokens(GEN3DHF, processor.tokenizer), heads={"score": HeadConfig(read=read)}
    )
    collator = Collator(processor.tokenizer.pad_token_id, aspects=tuple(GEN3DHF))
    batches = runs.probe_batches(items, collator, metric)
    runs.save_probe(tmp_path, batches)
    again = runs.read_probe(tmp_path)
    assert [len(batch["input_ids"]) for batch in again] == [4, 4, 4, 4]
    for batch, kept in zip(batches, again, strict=True):
        assert not {"learnt", "targets", "values", "asked"} & set(kept)
        assert torch.equal(batch["pixel_values_videos"], kept["pixel_values_videos"])
        # The one learnt token that is a level word stands at the end of the answer prefix.
        learnt = batch["learnt"][batch["targets"] == tokens[LEVELS.index("good")]]
        assert torch.equal(kept["levels"], learnt)
        assert len(learnt) == 4


def test_a_probe_of_an_older_run_is_one_batch(tmp_path):
    """Catches a finished run that an update makes unmergeable."""
    save_file({"input_ids": torch.ones(2, 3)}, tmp_path / runs.PROBE)
    (batch,) = runs.read_probe(tmp_path)
    assert set(batch) == {"input_ids"}
