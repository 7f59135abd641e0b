"""What the tests of the data set's figures share."""

import pytest

from lmme3dhf.data.gen3dhf import read_list
from tests.conftest import DIMENSIONS, shared_data


def videos(count: int) -> list[str]:
    """The first so many identifiers."""
    return [f"seed{number:04d}" for number in range(count)]


@pytest.fixture(scope="module")
def official() -> tuple[dict, dict]:
    """Scores and parts of the eight official lists."""
    mos: dict = {dimension: {} for dimension in DIMENSIONS}
    parts: dict = {}
    for dimension in DIMENSIONS:
        for part in ("train", "eval"):
            path = shared_data("gen3dhf_annotations", "numerical", f"{part}_{dimension}.json")
            samples = read_list(path, allow_outside=True)
            parts[part] = [sample.video for sample in samples]
            mos[dimension] |= {sample.video: sample.mos for sample in samples}
    return mos, parts
