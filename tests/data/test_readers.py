"""Lists through the one door: tables of clips, lists of other aspects, and what is refused."""

import json
from pathlib import Path

import pytest

from lmme3dhf.aspects import GEN3DHF, Aspect, Scale
from lmme3dhf.data.check import check
from lmme3dhf.data.gen3dhf import level_reply, write_list
from lmme3dhf.data.readers import READERS, list_samples, split_entry
from lmme3dhf.data.samples import DataError, Origin, Sample

MATCH = Aspect(
    name="match",
    prompt='How well does it show "{prompt}"?',
    answer_prefix='Its {aspect} with "{prompt}" is',
    scale=Scale(minimum=1, maximum=5, levels=("low", "middle", "high"), edges=(1, 2, 4, 5)),
)
SHARP = Aspect(
    name="sharp",
    prompt="How sharp is it?",
    answer_prefix="The sharpness is",
    scale=Scale(minimum=0, maximum=10, levels=()),
)
ASPECTS = {"match": MATCH, "sharp": SHARP}
TABLE = """path;match;match_std;sharp;prompt;generator;identity
a/one.png;4,5;0,5;7;a cat, asleep;G1;ann
two.mp4;;;3,25;a dog;G2;ben
three.mp4;2;;;a hen;G1;
"""


def written(folder: Path, text: str, name: str = "clips.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def samples_of(path: Path, **options) -> list[Sample]:
    return list_samples([f"table:{path}"], aspects=ASPECTS, **options)


def test_a_table_is_read(tmp_path):
    """Every cell by hand: an image in a folder below, a clip without one of the scores, one without
    an identity. Catches a missing score read as 0, a level that does not follow from its score, and
    a prompt lost on the way into the question.
    """
    samples = samples_of(written(tmp_path, TABLE))
    assert [(s.video, s.task, s.mos, s.level) for s in samples] == [
        ("one", "match", 4.5, "high"),
        ("one", "sharp", 7, None),
        ("two", "sharp", 3.25, None),
        ("three", "match", 2, "low"),
    ]
    one = samples[0]
    assert one.path == tmp_path / "a/one.png"
    assert one.prompt == 'How well does it show "a cat, asleep"?'
    assert one.reply == 'Its match with "a cat, asleep" is high.'
    assert (one.values, one.stds) == ({"match": 4.5, "sharp": 7}, {"match": 0.5})
    assert one.slots == {"prompt": "a cat, asleep"}
    assert samples[1].reply is None
    assert [s.origin for s in samples[1:]] == [
        Origin("G1", "ann"),
        Origin("G2", "ben"),
        Origin("G1", "three"),
    ]
    assert samples[2].where == f"{tmp_path / 'clips.csv'}:3"


def test_words_alone_are_enough(tmp_path):
    """Catches a table of level words that needs scores."""
    (sample,) = samples_of(written(tmp_path, "file,match_level,prompt\na.mp4,middle,x\n"))
    assert (sample.mos, sample.level, sample.reply) == (
        None,
        "middle",
        'Its match with "x" is middle.',
    )


def test_labels_of_a_table_can_be_ignored(tmp_path):
    """Catches a score that reaches a prediction, and a table without scores that cannot be asked
    about.
    """
    for text in (TABLE, "video,prompt\na/one.png,x\n"):
        samples = samples_of(written(tmp_path, text), labels="ignore")
        assert [s.task for s in samples] == ["match", "sharp"] * (len(samples) // 2)
        known = {(s.reply, s.mos, s.level, *s.values, *s.levels, *s.stds) for s in samples}
        assert known == {(None, None, None)}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("path,match\na.mp4,6\n", r":2: match is 6, expected 1 to 5"),
        ("path,match\na.mp4,good\n", r":2: match is 'good', expected a number"),
        ("path,match\na.mp4,nan\n", r":2: match is 'nan'"),
        ("path,match,match_std\na.mp4,3,x\n", r":2: match_std is 'x'"),
        ("path,match,match_level,prompt\na.mp4,3,splendid,x\n", r":2: .*splendid.*low, middle"),
        ("path,match\na.mp4,3\n", r":2: .*slot 'prompt'"),
        ("path,sharp\n,3\n", r":2: no path"),
        ("path,sharp\na.mp4,3\nb/a.mov,3\n", r":3: a has a row already"),
        ("path,sharp\n../a.mp4,3\n", r":2: .*leads out of.*--video_root.*--allow_outside"),
        ("path,sharp\n/etc/passwd,3\n", r":2: .*leads out of"),
        ("path,sharp\na.mp4,\n", r":2: neither a score nor a level"),
        ("path,file,sharp\na.mp4,b.mp4,3\n", r":1: .*one column of clips"),
        ("sharp\n3\n", r":1: .*one column of clips"),
        ("path,sharp,sharp\na.mp4,3,4\n", r":1: .*none twice"),
        ("path,prompt\na.mp4,x\n", r":1: .*no column of an aspect.*match, sharp"),
        ("path,sharp,shrp_std\na.mp4,3,1\n", r":1: .*shrp_std of an aspect"),
        ("path,sharp\na.mp4\n", r":2: 1 cells, expected 2"),
    ],
)
def test_what_a_table_cannot_say_is_refused_with_its_line(tmp_path, rows, reason):
    """Catches a row that is guessed at or passed over, and a column whose name is misspelt."""
    with pytest.raises(DataError, match=reason):
        samples_of(written(tmp_path, rows))


def test_the_check_reads_tables(tmp_path):
    """All faults in one go, each with its line. Catches a check that stops at the first, and one
    that takes the table for ratings.
    """
    text = TABLE.replace("3,25", "11").replace("three.mp4;2", "three.mp4;9")
    report = check(written(tmp_path, text), decode="none", aspects=ASPECTS)
    places = [finding.place for finding in report.findings if finding.kind == "row"]
    assert [place.rpartition(":")[2] for place in places] == ["3", "4"]
    assert [f.kind for f in report.findings].count("missing clip") <= 1


def test_a_folder_of_clips_may_be_elsewhere(tmp_path):
    """Catches a root that is ignored, and folders of the table that are dropped."""
    samples = samples_of(written(tmp_path, TABLE), root=tmp_path / "media")
    assert samples[0].path == tmp_path / "media/a/one.png"
    outside = written(tmp_path, "path,sharp\n/clips/a.mp4,3\n", "outside.csv")
    assert samples_of(outside, allow_outside=True)[0].path == Path("/clips/a.mp4")


def test_lists_of_other_aspects_are_written_and_read(tmp_path):
    """Slots come back from the sentences, a score without a word, too. Catches a reader that knows
    the sentence of Gen3DHF alone.
    """
    slots = {"prompt": "a (small) cat. Asleep?"}
    about = {"video": "one", "path": tmp_path / "one.png"}
    asked = [
        Sample(
            **about,
            task="match",
            prompt=MATCH.question(slots),
            reply=level_reply(MATCH, "low", 1.5, slots),
            values={"match": 1.5},
            levels={"match": "low"},
            slots=slots,
        ),
        Sample(
            **about,
            task="sharp",
            prompt=SHARP.question(),
            reply=level_reply(SHARP, None, 2.5),
            values={"sharp": 2.5},
        ),
    ]
    path = tmp_path / "list.json"
    write_list(path, asked)
    assert json.loads(path.read_text())[1]["messages"][1]["content"] == "The sharpness is (2.5)"
    options = {"root": tmp_path, "aspects": ASPECTS}
    read = list_samples([path], **options)
    assert [(s.prompt, s.reply, s.slots, s.mos, s.level) for s in read] == [
        (s.prompt, s.reply, s.slots, s.mos, s.level) for s in asked
    ]
    # Each knows what the others say of the clip.
    assert {tuple(sorted(s.values.items())) for s in read} == {(("match", 1.5), ("sharp", 2.5))}
    questions = list_samples([path], labels="ignore", **options)
    assert [(s.task, s.slots, s.mos) for s in questions] == [
        ("match", slots, None),
        ("sharp", {}, None),
    ]
    with pytest.raises(DataError, match="row 1"):
        list_samples([path], root=tmp_path, aspects=GEN3DHF)


def test_entries_name_their_reader(tmp_path, monkeypatch):
    """Catches a path with a colon taken for a reader, and a misspelt reader taken for a path."""
    assert split_entry("table:a/b.csv") == ("table", "a/b.csv")
    assert split_entry(r"C:\lists\a.json") == ("gen3dhf", r"C:\lists\a.json")
    assert split_entry("text/train_quality.json") == ("gen3dhf", "text/train_quality.json")
    with pytest.raises(DataError, match=r"'tabel' is none of the readers.*table.*--plugin"):
        split_entry("tabel:a.csv")
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "[]", "odd:list.json")
    assert split_entry("odd:list.json") == ("gen3dhf", "odd:list.json")
    assert set(READERS) >= {"gen3dhf", "table"}
