"""LMME3DHF: a quality metric for AI-generated 3D human faces, built on Qwen2.5-VL."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lmme3dhf")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

# Name -> its module. Most of them import torch; `import lmme3dhf` alone (and so `lmme3dhf --help`)
# must not.
_LAZY = {
    "Assessment": "lmme3dhf.assessment",
    "Failure": "lmme3dhf.assessment",
    "Question": "lmme3dhf.assessment",
    "Scorer": "lmme3dhf.scorer",
    "as_loss": "lmme3dhf.reward",
    "as_reward": "lmme3dhf.reward",
    "push_to_hub": "lmme3dhf.models.hub",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Kept, so that it is looked for once.
    globals()[name] = value = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
