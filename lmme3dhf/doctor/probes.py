"""What is tried in a child process: python -m lmme3dhf.doctor.probes NAME OPTIONS.

Each probe tells its parent (`doctor.child`) which step it begins, and after it what came out. Heavy
libraries are imported inside the steps.
"""

import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmme3dhf.doctor.child import MARK
from lmme3dhf.errors import UserError

# What a broken library raises. Anything else ends the process, which is told as well.
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    UserError,
)
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")


def _tell(record: dict[str, Any]) -> None:
    print(f"\n{MARK}{json.dumps(record)}", flush=True)


@contextmanager
def _step(name: str) -> Iterator[dict[str, Any]]:
    """A step, whose facts the caller fills in."""
    facts: dict[str, Any] = {}
    _tell({"step": name})
    try:
        yield facts
    except _BROKEN as error:
        words = " ".join(str(error).split())
        _tell({"step": name, "facts": None, "problem": f"{type(error).__name__}: {words}"[:400]})
    else:
        _tell({"step": name, "facts": facts})


def torch_probe() -> None:
    """torch itself, its GPUs, and its two attention kernels where a model would run."""
    with _step("import") as facts:
        import torch

        facts |= {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "available": torch.cuda.is_available(),
        }
    if not facts:
        return
    with _step("gpus") as facts:
        facts["gpus"] = [_gpu(torch, i) for i in range(torch.cuda.device_count())]
    with _step("eager") as facts:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # Two heads as wide as the 7B model's.
        query, key, value = torch.randn(3, 1, 2, 16, 128, device=device).to(torch.bfloat16)
        mask = torch.ones(16, 16, dtype=torch.bool, device=device).tril()
        weights = (query @ key.mT / 128**0.5).masked_fill(~mask, float("-inf")).softmax(-1)
        eager = weights @ value
        facts["device"] = str(eager.device)
    if not facts:
        return
    with _step("sdpa") as facts:
        fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        facts["difference"] = (fused - eager).abs().max().item()
        # bfloat16 keeps 8 bits.
        if not facts["difference"] < 0.1:
            raise RuntimeError(f"its results are off by {facts['difference']:.2g}")


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    major, minor = torch.cuda.get_device_capability(index)
    return {
        "name": torch.cuda.get_device_name(index),
        "total": total,
        "free": free,
        "capability": f"{major}.{minor}",
        "bf16": major >= 8,  # earlier ones compute it by way of float32
    }


def torchvision_probe() -> None:
    """torchvision beside this torch: its compiled operators too."""
    with _step("torchvision") as facts:
        import torch
        import torchvision

        facts["version"] = torchvision.__version__
        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
        if kept != [0, 2]:
            raise RuntimeError(f"torchvision.ops.nms keeps {kept}, expected [0, 2]")


def transformers_probe() -> None:
    """The classes that the model is made of, and flash attention as the model tries it."""
    with _step("transformers") as facts:
        import transformers
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Trainer

        facts |= {
            "version": transformers.__version__,
            "classes": [
                c.__name__ for c in (Qwen2_5_VLForConditionalGeneration, AutoProcessor, Trainer)
            ],
        }
    with _step("peft") as facts:
        import peft

        facts["version"] = peft.__version__
    with _step("flash_attention_2") as facts:
        import torch

        from lmme3dhf.models.loading import chosen_device, flash_attention_problem

        facts["problem"] = flash_attention_problem(chosen_device(), torch.bfloat16)


def bitsandbytes_probe() -> None:
    """Small layers in 8 and in 4 bits, as the language model's are loaded."""
    with _step("import") as facts:
        import bitsandbytes as bnb
        import torch

        facts["version"] = bnb.__version__
    if not facts:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = torch.nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    x = torch.randn(4, 64).to(torch.bfloat16)
    expected = layer(x)
    kinds = {
        "8bit": lambda: bnb.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False),
        "4bit": lambda: bnb.nn.Linear4bit(
            64,
            64,
            bias=False,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            compress_statistics=True,
        ),
    }
    for name, make in kinds.items():
        with _step(name) as facts:
            quantised = make()
            quantised.load_state_dict(layer.state_dict())
            difference = quantised.to(device)(x.to(device)).cpu() - expected
            facts["relative_difference"] = (difference.norm() / expected.norm()).item()
            if not facts["relative_difference"] < 0.5:
                raise RuntimeError(f"off by {facts['relative_difference']:.0%} of the result")


def decoder_probe() -> None:
    """A clip of a red and a blue half, written and read by PyAV as clips are read here."""
    with _step("av") as facts:
        import av

        facts["version"] = av.__version__
    if not facts:
        return
    with _step("codecs") as facts:
        # Hardware and device builds of a codec have other names.
        facts["missing"] = [name for name in CODECS if not _decodes(av, name)]
    with _step("h264") as facts, tempfile.TemporaryDirectory() as folder:
        import numpy as np

        from lmme3dhf.data.container import view_pictures

        path = Path(folder, "clip.mp4")
        colours = np.array([[220, 30, 30]] * 4 + [[30, 30, 220]] * 4, np.uint8)
        _write(av, path, [np.full((64, 64, 3), colour, np.uint8) for colour in colours])
        first, last = view_pictures(path, [0.0, 1.0])
        facts["colours"] = [picture.mean((0, 1)).round().tolist() for picture in (first, last)]
        if np.abs(np.array(facts["colours"]) - colours[[0, -1]]).max() > 20:
            raise RuntimeError(f"the clip's colours come back as {facts['colours']}")


def _decodes(av: Any, name: str) -> bool:
    try:
        av.Codec(name, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _write(av: Any, path: Path, pictures: list) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def decord_probe() -> None:
    """decord, which is nowhere needed."""
    with _step("decord") as facts:
        import decord

        facts["version"] = decord.__version__


def hub_probe(endpoint: str, timeout_s: float) -> None:
    """Whether the hub answers; any answer counts."""
    with _step("hub") as facts:
        request = urllib.request.Request(endpoint, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                facts["status"] = answer.status
        except urllib.error.HTTPError as error:
            facts["status"] = error.code


def model_probe(folder: str) -> None:
    """A model folder: every file against its manifest, what it measures, and its weights."""
    from lmme3dhf.files import MANIFEST
    from lmme3dhf.models.card import METRIC, read_metric
    from lmme3dhf.models.folder import check_folder, model_damage

    path = Path(folder)
    with _step("files") as facts:
        if not (path / "config.json").is_file():
            raise RuntimeError("there is no config.json")
        weights = list(path.glob("*.safetensors"))
        if not weights:
            raise RuntimeError("there are no weights (*.safetensors)")
        check_folder(path)
        facts |= {
            "manifest": (path / MANIFEST).is_file(),
            "metric": (path / METRIC).is_file(),
            "bytes": sum(file.stat().st_size for file in weights),
        }
    with _step("metric") as facts:
        metric = read_metric(path)
        facts |= {key: metric.get(key) for key in ("decoder", "stage", "saliency")}
    with _step("manifest") as facts:
        facts["damage"] = model_damage(path)


PROBES: dict[str, Callable[..., None]] = {
    "torch": torch_probe,
    "torchvision": torchvision_probe,
    "transformers": transformers_probe,
    "bitsandbytes": bitsandbytes_probe,
    "decoder": decoder_probe,
    "decord": decord_probe,
    "hub": hub_probe,
    "model": model_probe,
}


if __name__ == "__main__":
    PROBES[sys.argv[1]](**json.loads(sys.argv[2]))
