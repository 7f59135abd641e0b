"""LMME3DHF: a quality metric for AI-generated 3D human faces, built on Qwen2.5-VL."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lmme3dhf")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Scorer", "__version__"]


def __getattr__(name: str):
    # The scorer imports torch; `import lmme3dhf` alone (and so `lmme3dhf --help`) must not.
    if name == "Scorer":
        from lmme3dhf.scorer import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
