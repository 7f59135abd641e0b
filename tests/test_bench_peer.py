"""The comparison with ms-swift: what it feeds both sides, how it counts, and our side of it. The
peer's side needs ms-swift's own environment and runs by hand.
"""

import json
import sys

import pytest
import torch
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.config import load_config
from scripts import bench_peer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A narrow checkpoint, two clips of nine small frames, and their lists."""
    work = tmp_path_factory.mktemp("peer")
    bench_peer.write_checkpoint(work / "model", hidden=64, seed=0)
    clips = bench_peer.write_clips(work / "data" / "video_RGB", 2, size_px=64, frames=9)
    samples = bench_peer.write_lists(work / "data", clips)
    settings = work / "ours.yaml"
    settings.write_text(bench_peer.our_settings(work / "model", work / "data"), encoding="utf-8")
    return work, settings, [json.loads(line) for line in samples.read_text().splitlines()]


@pytest.fixture(scope="module")
def ours(made):
    """Record and losses of our side."""
    work, settings, _ = made
    python = bench_peer.Path(sys.executable)
    run = bench_peer.run_child(
        python, "ours", [str(settings), str(work / "ours")], work / "runs" / "ours"
    )
    return run, bench_peer.losses(work / "ours" / "losses.jsonl")


def stock_dialogues(made, clip):
    """Inputs of the library's own processor for the three questions on a clip, with their replies,
    and where each reply begins.
    """
    processor = AutoProcessor.from_pretrained(made[0] / "model")
    for row in made[2][3 * clip : 3 * clip + 3]:
        asked, replied = row["messages"]
        video = {"type": "video", "video": row["videos"][0]}
        text = {"type": "text", "text": asked["content"].removeprefix("<video>")}
        messages = [{"role": "user", "content": [video, text]}]
        prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        _, videos, kwargs = process_vision_info(messages, return_video_kwargs=True)
        fps = kwargs.pop("fps")[0]
        common = dict(videos=videos, fps=fps, do_resize=False, return_tensors="pt", **kwargs)
        start = processor(text=[prompt], **common)["input_ids"].shape[1]
        yield processor(text=[f"{prompt}{replied['content']}<|im_end|>"], **common), start


def test_special_tokens_have_qwens_numbers(made):
    """ms-swift looks for the numbers 151655 and 151656 and finds no video elsewhere. The numbers
    are those of Qwen2.5-VL's published tokenizer.
    """
    processor = AutoProcessor.from_pretrained(made[0] / "model")
    known = {
        "<|endoftext|>": 151643,
        "<|im_start|>": 151644,
        "<|im_end|>": 151645,
        "<|vision_start|>": 151652,
        "<|vision_end|>": 151653,
        "<|image_pad|>": 151655,
        "<|video_pad|>": 151656,
    }
    ids = processor.tokenizer.convert_tokens_to_ids(list(known))
    assert dict(zip(known, ids, strict=True)) == known
    assert processor.tokenizer.decode(processor.tokenizer.encode("No face, 3 ears.")) == (
        "No face, 3 ears."
    )


def test_both_sides_get_the_same_numbers(made):
    """Catches a rate, rank or decay that is changed for one side only."""
    config = load_config(made[1])
    given = bench_peer.peer_arguments("m", "s", "o", checkpointing=True)
    theirs = dict(zip(given[::2], given[1::2], strict=True))
    trainer = config.text.trainer
    assert theirs["--learning_rate"] == str(trainer["learning_rate"])
    assert theirs["--weight_decay"] == str(trainer["weight_decay"])
    assert theirs["--adam_beta2"] == str(trainer["adam_beta2"])
    assert (theirs["--lora_rank"], theirs["--lora_alpha"]) == (
        str(config.lora.rank),
        str(config.lora.alpha),
    )
    assert float(theirs["--lora_dropout"]) == config.lora.dropout == 0
    # Three questions a step: as so many forwards there, as one packed item here.
    assert theirs["--gradient_accumulation_steps"] == "3"
    assert trainer["per_device_train_batch_size"] == 1
    assert config.packed
    assert config.data.store


def test_our_side_sees_the_tokens_of_the_stock_processor(made, ours):
    """The dialogues of the first clip, each once. Catches another system message, another number of
    visual tokens, and a watch that misses a forward.
    """
    dialogues = [inputs["input_ids"][0].tolist() for inputs, _ in stock_dialogues(made, 0)]
    (((packed,),),) = [ours[0]["sequences"]]
    assert bench_peer.same_tokens(dialogues, packed)
    assert dialogues[0].count(151656) == 2 * 12 * 12  # 4 frames of 336 x 336
    assert len(packed) < sum(map(len, dialogues)) / 2


def test_our_first_loss_is_the_stock_models(made, ours):
    """Mean cross-entropy of the three replies' tokens, by the library's model on one dialogue at a
    time. Catches a comparison of unlike losses, for which ms-swift would be needed otherwise.
    """
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(made[0] / "model").eval()
    total, count = 0.0, 0
    for inputs, start in stock_dialogues(made, 0):
        labels = inputs["input_ids"].clone()
        labels[:, :start] = -100
        learnt = int((labels != -100).sum())
        with torch.no_grad():
            total += model(**inputs, labels=labels).loss.item() * learnt
        count += learnt
    run, losses = ours
    assert losses[0] == pytest.approx(total / count, abs=1e-4)
    assert len(losses) == len(run["ends"]) == 2


def test_a_packed_sequence_holds_the_dialogues_and_nothing_else():
    """By hand: two dialogues that begin alike. Catches a check that passes on anything."""
    separate = [[1, 2, 3, 9], [1, 2, 4, 5, 9]]
    assert bench_peer.same_tokens(separate, [1, 2, 3, 4, 5])
    assert not bench_peer.same_tokens(separate, [1, 2, 3, 4])
    assert not bench_peer.same_tokens(separate, [1, 2, 3, 4, 6])
    assert not bench_peer.same_tokens(separate, [1, 2, 3, 5, 4])
    assert not bench_peer.same_tokens(separate, [1, 2, 3, 1, 2, 4, 5])


def planted(seconds_a_step, losses):
    ends = [[10.0, 1.0], [10.0 + seconds_a_step, 1.0], [10.0 + seconds_a_step, 1.0 + 1.5]]
    return {
        "ends": ends,
        "losses": losses,
        "sequences": [[[1, 2, 3, 9]], [[1, 2, 4, 9]]],
        "peak_rss_mb": 100.0,
        "libraries": {"torch": "2"},
    }


def test_the_row_is_counted_per_sample_without_the_first_step():
    """By hand: steps of 6 and 1.5 s of three samples each are 2 and 0.5 s a sample, median 1.25;
    ours 1.5 and 1.5 s, 0.5. Catches start-up in the time, system time left out, and a ratio per
    step.
    """
    runs = {
        "recipe": [planted(9.0, [12.0, 11.0, 10.0])],
        "best": [planted(6.0, [12.0, 11.0, 10.0])],
        "ours": [planted(1.5, [12.00002, 11.0, 10.25]) | {"sequences": [[[1, 2, 3, 4]]]}],
    }
    row = bench_peer.report(runs, fill_s=9.0, clips=6)
    assert row["seconds"] == pytest.approx({"recipe": 1.75, "best": 1.25, "ours": 0.5})
    assert row["ratio"] == pytest.approx(2.5)
    assert row["ratio_recipe"] == pytest.approx(3.5)
    # Filling costs 9 s for 18 samples: 0.5 s each.
    assert row["ratio_single_epoch"] == pytest.approx(1.25)
    assert row["difference"] == pytest.approx(2e-5)
    assert row["difference_all_steps"] == pytest.approx(0.25)
    assert row["tokens_per_clip"] == {"peer": 8, "ours": 4}
    assert row["same_tokens"]
    assert "| ours | 0.50 | 0.50 to 0.50 | 1.00 | 4 | 100 |" in bench_peer.table(row)


@pytest.mark.parametrize(
    ("python", "said"), [("missing/python", "No such file"), (None, "PackageNotFoundError")]
)
def test_without_the_peer_one_sentence_says_how_to_get_it(python, said, capsys):
    """An interpreter that is not there, and one without ms-swift. Catches a traceback, and minutes
    of rendering before it.
    """
    with pytest.raises(SystemExit) as stopped:
        bench_peer.main(["--peer_python", python or sys.executable])
    assert said in str(stopped.value)
    assert "pip install ms-swift" in str(stopped.value)
    assert capsys.readouterr().out == ""
