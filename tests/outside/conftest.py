"""The made-up run of the comparison's tests."""

from tests.comparison.conftest import make_run

__all__ = ["make_run"]
