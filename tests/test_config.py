"""Settings: strict keys and types, overrides, the round trip, and every file that we ship."""

import dataclasses
import json
from argparse import ArgumentError
from pathlib import Path

import pytest
import yaml

from lmme3dhf.config import (
    Config,
    ConfigError,
    DataSettings,
    LoraSettings,
    SaliencySettings,
    TextSettings,
    dump_config,
    load_ablations,
    load_config,
    to_plain,
    with_settings,
)

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS = ROOT / "configs" / "ablations.yaml"
SHIPPED = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if path != ABLATIONS]
PLAIN = "seed: 7\nlora: {rank: 2, alpha: 6}\ntext: {trainer: {learning_rate: 1e-4, bf16: false}}\n"


def loaded(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, *overrides)


def test_what_a_file_leaves_out_keeps_its_default(tmp_path):
    """Catches a group that loses its other defaults because one of its keys is set."""
    config = loaded(tmp_path, PLAIN)
    assert config.seed == 7
    assert config.lora == LoraSettings(rank=2, alpha=6)
    assert config.lora.dropout == 0.05
    assert config.saliency == SaliencySettings()
    assert (
        dataclasses.replace(config, seed=42, lora=LoraSettings(), text=TextSettings()) == Config()
    )


def test_defaults_are_the_papers():
    """Table 5 (rank 8, language model only), the released weights of Eq. 5, the 7B backbone."""
    config = Config()
    assert (config.lora.rank, config.lora.language, config.lora.vision) == (8, True, False)
    assert config.saliency.weights == (1.0, 0.4, 0.2, 1.0)
    assert config.score.language_weight == 0
    assert config.model == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001"])
def test_numbers_are_numbers(tmp_path, number):
    """YAML 1.1 reads 1e-4 as text. Catches a learning rate that is a string, also among the free
    fields of the trainer, whose types nobody declares.
    """
    config = loaded(
        tmp_path, f"score: {{language_weight: {number}, trainer: {{learning_rate: {number}}}}}\n"
    )
    for value in (config.score.language_weight, config.score.trainer["learning_rate"]):
        assert isinstance(value, float)
        assert value == 0.0001


def test_lists_are_read_with_their_types(tmp_path):
    """Catches lists where tuples are declared: a frozen record would not be hashable or equal."""
    config = loaded(
        tmp_path,
        "text: {lists: [a.json]}\nsaliency: {taps: [7, 15], weights: [1, 0, 0.5, 2]}\n"
        "data: {root: some/where}\n",
    )
    assert config.text.lists == ("a.json",)
    assert config.saliency.taps == (7, 15)
    assert config.saliency.weights == (1.0, 0.0, 0.5, 2.0)
    assert config.data.root == Path("some/where")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sed: 7\n", "sed"),
        ("lora: {rnk: 8}\n", "rnk"),
        ("lora:\n  rank: 8\n  trainer: {max_steps: 1}\n", "trainer.max_steps"),
        ("saliency: {weight: [1, 1, 1, 1]}\n", "weight"),
    ],
)
def test_unknown_keys_are_refused(tmp_path, text, named):
    """Catches a misspelt key that is ignored: the run would use the default and say nothing."""
    with pytest.raises(ArgumentError, match=f"'{named}'"):
        loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: seven\n", "seed"),
        ("seed: 7.5\n", "seed"),
        ("seed: true\n", "seed"),
        ("lora: {rank: 8.5}\n", "lora.rank"),
        ("lora: {vision: maybe}\n", "lora.vision"),
        ("lora: {dropout: high}\n", "lora.dropout"),
        ("saliency: {weights: [1, 1]}\n", "saliency.weights"),
        ("text: {lists: 3}\n", "text.lists"),
        ("text: {trainer: 3}\n", "text.trainer"),
        ("- 7\n", "config"),
        ("seed: [\n", "parsing config"),
    ],
)
def test_wrong_types_are_refused_by_name(tmp_path, text, named):
    """Catches values that are rounded or turned into text, and an error that names no key."""
    with pytest.raises(ArgumentError, match=named):
        loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lora: {rank: 0}\n", "lora.rank must be at least 1"),
        ("score: {read: reply}\n", "answer, question, label"),
        ("saliency: {branches: all}\n", "both, visual, multimodal"),
        ("dtype: float64\n", "dtype must be one of float32, bfloat16, float16"),
        ("dtype: half\n", "dtype must be one of float32, bfloat16, float16"),
    ],
)
def test_impossible_values_are_refused(tmp_path, text, reason):
    """Where they are defined, not hours later. Catches a check that only runs from Python."""
    with pytest.raises(ValueError, match=reason):
        loaded(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    """Catches defaults in place of the settings that somebody asked for."""
    with pytest.raises(ArgumentError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_later_options_override_the_file(tmp_path):
    """Single keys, at any depth, with their neighbours kept. Catches an override that replaces its
    whole group, and one that is read as text.
    """
    config = loaded(
        tmp_path,
        PLAIN,
        "--lora.rank",
        "16",
        "--text.trainer.learning_rate",
        "3e-5",
        "--text.trainer.max_steps",
        "5",
        "--data.root",
        "else/where",
        "--seed",
        "8",
    )
    assert config.lora == LoraSettings(rank=16, alpha=6)
    assert config.text.trainer == {"learning_rate": 3e-5, "bf16": False, "max_steps": 5}
    assert isinstance(config.text.trainer["learning_rate"], float)
    assert config.data == DataSettings(root=Path("else/where"))
    assert config.seed == 8
    with pytest.raises(ArgumentError, match=r"--lora\.rnk"):
        loaded(tmp_path, PLAIN, "--lora.rnk", "16")


def test_settings_survive_the_file(tmp_path):
    """Every group changed once. Catches a field that is not written, paths and tuples that come
    back as something else, and a resolved file that differs each time it is written.
    """
    config = loaded(
        tmp_path,
        PLAIN,
        "--frames.frames=8",
        "--data.video_root=clips",
        "--score.rehearsal=[]",
        "--saliency.taps=[3,1]",
        "--synthetic.latents=5",
        '--text.trainer.lr_scheduler_kwargs={"num_cycles": 2}',
        "--batch_size=3",
    )
    text = dump_config(config)
    again = loaded(tmp_path, text)
    assert again == config
    assert dump_config(again) == text
    assert again.data.video_root == Path("clips")
    assert again.data.features is None
    assert again.saliency.taps == (3, 1)
    assert again.score.rehearsal == ()


def test_plain_settings_are_what_json_holds():
    """Catches paths and tuples that JSON or YAML cannot write."""
    plain = to_plain(Config())
    assert json.loads(json.dumps(plain)) == plain
    assert plain["data"]["root"] == "datasets/Gen3DHF"
    assert plain["saliency"]["weights"] == [1.0, 0.4, 0.2, 1.0]
    assert set(plain) == {field.name for field in dataclasses.fields(Config)}


def test_folders_below_the_data_set_are_found():
    """Catches a store of features in the working folder, and a given folder that is overruled."""
    resolved = DataSettings(root=Path("a")).resolved()
    assert resolved.video_root == Path("a/video_RGB")
    assert resolved.features == Path("a/features")
    kept = DataSettings(root=Path("a"), video_root=Path("b"), features=Path("c"))
    assert kept.resolved() == kept


def test_settings_do_not_change():
    """Catches a stage that edits the settings of the next."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


def test_the_shipped_files_are_there():
    """Catches a renamed folder, after which the test below would look at nothing."""
    assert {"demo.yaml", "paper.yaml", "official.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_loads(path):
    """Catches a key that was renamed in the code only, and a value that is not used."""
    config = load_config(path)
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written
    assert loaded_back(config, written)
    for stage in ("text", "score", "saliency"):
        rate = getattr(config, stage).trainer["learning_rate"]
        assert isinstance(rate, float)
        assert 0 < rate < 1


def loaded_back(config: Config, written: dict) -> bool:
    """Whether every key of a file is in the settings with its value."""
    plain = to_plain(config)

    def holds(found, wanted) -> bool:
        if isinstance(wanted, dict):
            return all(key in found and holds(found[key], wanted[key]) for key in wanted)
        return found == wanted

    return holds(plain, written)


def test_every_shipped_ablation_is_a_change_of_the_run(tmp_path):
    """Catches a row of Table 4 or 5 that is missing, a dotted name that is no setting, and a row
    that trains but changes nothing.
    """
    rows = load_ablations(ABLATIONS)
    printed = {(row.table, row.number) for row in rows if row.table}
    # Table 4's row 4 is Table 5's row 5: the whole model.
    assert printed == {(5, str(n)) for n in range(1, 7)} | {(4, str(n)) for n in range(1, 4)}
    trained = [row for row in rows if row.stages]
    assert trained
    for row in trained:
        for base in ("demo", "paper", "official"):
            config = load_config(ROOT / "configs" / f"{base}.yaml")
            assert with_settings(config, row.settings, row.factors) != config, (row.id, base)
    assert [row.id for row in rows if row.leaking] == ["label_leak"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rows: []\n", "a list of ablations"),
        ("rows: 3\n", "list"),
        ("row: []\n", "row"),
        ("rows:\n- {id: a, titel: b}\n", "titel"),
        ("rows:\n- {id: a/b, title: b}\n", "letters, digits and _"),
        ("rows:\n- {id: a, title: b, start: c}\n", "stage or an earlier row"),
        ("rows:\n- {id: text, title: b}\n", "no stage's name"),
        ("rows:\n- {id: a, title: b}\n- {id: a, title: b}\n", "once"),
        ("rows:\n- {id: a, title: b, stages: [score, text]}\n", "in order"),
        ("rows:\n- {id: a, title: b, scores: words}\n", "head, level"),
        ("rows:\n- {id: a, title: b, table: 3}\n", "4, 5 or 0"),
        ("rows:\n- {id: a, title: b, marks: {lora: true}}\n", "vision, llm and regression"),
        ("][", "YAML|yaml|pars"),
    ],
)
def test_an_impossible_file_of_ablations_is_refused(tmp_path, text, told):
    """Catches a row that would run as something else than was written."""
    path = tmp_path / "rows.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_ablations(path)


def test_changed_settings_are_checked_like_a_file():
    """By hand; catches a misspelt name that changes nothing, and a value of another type."""
    config = Config()
    changes = {"lora.rank": 4, "saliency.prompt": "", "score.trainer.learning_rate": 0.5}
    changed = with_settings(config, changes)
    assert (changed.lora.rank, changed.saliency.prompt) == (4, "")
    assert changed.score.trainer == {"learning_rate": 0.5}
    assert dataclasses.replace(changed.lora, rank=8) == config.lora
    smaller = with_settings(config, {}, {"frames.fps": 0.25, "lora.rank": 0.5})
    assert (smaller.frames.fps, smaller.lora.rank) == (0.5, 4)
    with pytest.raises(ConfigError, match="a number is expected"):
        with_settings(config, {}, {"model": 2})
    for wrong in ({"lora.rnak": 4}, {"rank": 4}, {"lora.rank": "four"}, {"lora.rank": 0}):
        with pytest.raises(ConfigError):
            with_settings(config, wrong)


def test_a_factor_rounds_whole_numbers():
    """100 * .29 is 28.999... in binary: 29. A tenth of 8 is 0.8, too far from 1."""
    config = with_settings(load_config(ROOT / "configs" / "demo.yaml"), {"lora.rank": 100})
    assert with_settings(config, {}, {"lora.rank": 0.29}).lora.rank == 29
    with pytest.raises(ConfigError, match=r"lora\.rank"):
        with_settings(with_settings(config, {"lora.rank": 8}), {}, {"lora.rank": 0.1})
