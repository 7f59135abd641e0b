"""Whose video it is, told by its path: patterns, folders, and what is said where none fits."""

import pytest

from lmme3dhf.escaping import visible
from lmme3dhf.generators.names import ONE_GROUP, PatternError, generators_of


@pytest.mark.parametrize(
    ("pattern", "file", "generator"),
    [
        ("{generator}_*", "clips/facelit_latent_tile0.mp4", "facelit"),
        ("{generator}_*", "facelit_x.mp4", "facelit"),
        ("{generator}_*", "a_b/facelit.mp4", None),  # the folder is not the file
        ("{generator}_*", "clips/_x.mp4", None),  # a generator has a name
        ("{generator}_tile*", "clips/facelit_latent_tile0.mp4", "facelit_latent"),
        ("seed*_{generator}.mp4", "seed01_gan.mp4", "gan"),
        ("*_{generator}", "seed01_gan.mp4", "gan"),
        ("*_{generator}", "seed01_gan.v2.mp4", "gan.v2"),
        ("{generator}", "clips/gan.mp4", "gan"),
        ("{generator}/*", "clips/gan/a.mp4", "gan"),
        ("{generator}/*", "a.mp4", None),
        ("./{generator}/*", "clips/gan/a.mp4", "gan"),
        ("{generator}/*/*", "clips/gan/seed0/a.mp4", "gan"),
        ("clips/{generator}/**/*", "root/clips/gan/a/b/c.mp4", "gan"),
        ("clips/{generator}/**/*", "clips/gan/c.mp4", "gan"),
        ("clips/{generator}/**/*", "others/gan/c.mp4", None),
        ("clips/{generator}/*", "myclips/gan/c.mp4", None),  # whole names, not their ends
        ("/data/{generator}/*", "/data/gan/a.mp4", "gan"),
        ("/data/{generator}/*", "/more/data/gan/a.mp4", None),
        ("gan-{generator}/*", "clips/gan-3/a.mp4", "3"),
        ("[{generator}].(*)", "[a.b].(1)", "a.b"),  # no regular expressions
        ("{generator}_*", "line\nbreak_1.mp4", "line\nbreak"),
    ],
)
def test_a_pattern_is_matched_with_the_end_of_the_path(pattern, file, generator):
    """Beside a file that always matches. Catches a pattern that takes too much of a name, matches
    the middle of one, or reads letters as a regular expression.
    """
    sure = pattern.replace("**/*", "x").replace("{generator}", "sure").replace("*", "x")
    assert generators_of([sure, file], pattern) == ["sure", generator]


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (["c/a/1.mp4", "c/b/1.mp4"], ["a", "b"]),
        (["c/a/x/1.mp4", "c/b/x/1.mp4"], ["a/x", "b/x"]),
        (["c/1.mp4", "c/b/1.mp4"], ["c/", "b"]),
        (["1.mp4", "b/1.mp4"], [".", "b"]),
        (["c/1.mp4", "c/2.mp4"], [ONE_GROUP, ONE_GROUP]),
        (["1.mp4"], [ONE_GROUP]),
        (["/d/a/1.mp4", "/d/ab/1.mp4"], ["a", "ab"]),  # not the letters that they share
    ],
)
def test_without_a_pattern_the_folder_is_the_generator(files, folders):
    """Catches two folders of one name that become one generator, and a group of half a name."""
    assert generators_of(files, None) == folders


@pytest.mark.parametrize(
    ("pattern", "file", "told"),
    [
        ("{generator}-*", "clips/gan_1.mp4", "none of the 1 files matches"),
        ("{generator}-*", "clips/gan_1.mp4", "\"{generator}_*\" would give 'gan'"),
        ("x/{generator}", "clips/1.mp4", "\"{generator}/*\" would give 'clips'"),
        ("x/{generator}", "gan.mp4", "\"{generator}\" would give 'gan'"),
        ("*_*", "gan_1.mp4", "{generator} stands in it 0 times"),
        ("{generator}_{generator}", "gan_1.mp4", "2 times"),
        ("{model}_*", "gan_1.mp4", "{model} is unknown"),
        ("{generator", "gan_1.mp4", "{generator is unknown"),
        ("{generator}/", "c/gan_1.mp4", "end with the file"),
        ("{generator}/**", "c/gan_1.mp4", "end with the file"),
        ("{generator}/**/*", "c/d/gan_1.mp4", "clips/{generator}/**/*"),
        ("", "gan_1.mp4", "0 times"),
    ],
)
def test_a_pattern_that_does_not_fit_is_told_with_one_that_does(pattern, file, told):
    """The example is made from the user's own first file. Catches an empty page, and a sentence
    that leaves the user to guess.
    """
    with pytest.raises(PatternError) as error:
        generators_of([file], pattern)
    assert told in str(error.value)
    assert "would give" in str(error.value)


@pytest.mark.parametrize("file", ["clips/gan_1.mp4", "gan-x/1.mp4", "1.mp4", "a b/c-d.mp4"])
def test_the_example_does_what_it_says(file):
    """Catches a sentence that advises a pattern which gives something else."""
    with pytest.raises(PatternError) as error:
        generators_of([file], "no place")
    pattern, _, rest = str(error.value).rpartition("; ")[2].strip('"').partition('" would give ')
    assert generators_of([file], pattern) == [rest.split("'")[1]]


def test_marks_that_change_how_a_name_is_read_are_shown():
    """Controls, writing direction, no width, halves of characters, and more letters than fit.
    Catches "gpj.exe" that is read as "exe.jpg".
    """
    assert visible("a\u202egpj.exe\u200b\n\udc80") == "a⟨U+202E⟩gpj.exe⟨U+200B⟩⟨U+000A⟩⟨U+DC80⟩"
    assert visible("<b>ü 生成器 عربى") == "<b>ü 生成器 عربى"
    assert visible("0123456789", 6) == "01…789"
    assert visible("012345", 6) == "012345"
