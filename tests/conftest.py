"""What several test files share: where the real inputs are, when they are there at all."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(*parts: str) -> Path:
    """Path below the folder of real inputs; skips the test where that folder is absent (they are
    not part of the project).
    """
    path = SHARED_DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip("the folder of real inputs (../shared/data) is not here")
    return path
