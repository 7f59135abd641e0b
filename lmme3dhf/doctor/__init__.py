"""Is everything there that the project needs, does it work, and is the machine large enough?

What can break is tried, each library in a process of its own (`doctor.child`): a wheel that imports
may still fail, crash or hang when it is used. Nothing heavy is imported here.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from lmme3dhf import __version__
from lmme3dhf.doctor import machine
from lmme3dhf.doctor.child import Step, Steps, tried
from lmme3dhf.doctor.finding import FAULT, OK, WARNING, Finding
from lmme3dhf.doctor.memory import Need, needs, table
from lmme3dhf.models.hub import local_model

_HUB_TIMEOUT_S = 3.0
_PAIR = "pip install --force-reinstall torch torchvision"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Examination:
    """All findings on a machine.

    Attributes:
        findings: In the order in which they are told.
        needs: Memory that models need, against what is there.
        against: What that is.
    """

    findings: list[Finding]
    needs: list[Need]
    against: str

    @property
    def faults(self) -> list[Finding]:
        """What is broken that everything needs."""
        return [finding for finding in self.findings if finding.status == FAULT]

    def text(self) -> str:
        """As it is printed."""
        warnings = sum(finding.status == WARNING for finding in self.findings)
        ended = f"{len(self.faults)} faults, {warnings} warnings"
        lines = [finding.line() for finding in self.findings]
        return "\n".join([*lines, *table(self.needs, self.against), ended])

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "lmme3dhf": __version__,
            "faults": len(self.faults),
            "findings": [asdict(finding) for finding in self.findings],
            "memory": {"against": self.against, "needs": [asdict(need) for need in self.needs]},
        }


def examine(*, model: str | None = None, offline: bool = False) -> Examination:
    """Looks at everything; takes about as long as torch and transformers take to import, and no
    longer than half a minute where one of them hangs.

    Args:
        model: Folder of a model to look at too.
        offline: Does not ask the hub.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or _HUB
    offline_by = "--offline" if offline else _offline_setting()
    folder = local_model(model) if model else None
    probes: dict[str, dict[str, Any]] = {
        name: {} for name in ("torch", "torchvision", "transformers", "decoder")
    }
    # Optional ones are tried where they are.
    probes |= {name: {} for name in ("bitsandbytes", "decord") if importlib.util.find_spec(name)}
    if not offline_by:
        probes["hub"] = {"endpoint": endpoint, "timeout_s": _HUB_TIMEOUT_S}
    if folder:
        probes["model"] = {"folder": str(folder)}
    findings = list(_without_libraries())
    told = tried(probes)
    gpus = _facts(told["torch"], "gpus").get("gpus", [])
    findings += _torch(told["torch"])
    findings += _gpus(gpus)
    if _problem(told["torch"], "import"):
        message = "not judged without torch, nor are torchvision and attention"
        findings.append(Finding(check="transformers", status=WARNING, message=message))
    else:
        findings += _torchvision(told["torchvision"])
        findings += _transformers(told["transformers"], told["torchvision"])
        findings += _attention(told["torch"], told["transformers"])
    findings += _bitsandbytes(told.get("bitsandbytes"))
    findings += _decoder(told["decoder"])
    findings += _decord(told.get("decord"))
    findings += _hub(endpoint, offline_by, told.get("hub", {}))
    if model:
        findings += _model(model, folder, told.get("model", {}))
    if gpus:
        against = f"{gpus[0]['name']}, {gpus[0]['total'] / 1e9:.0f} GB"
        cells = needs(gpus[0]["total"], gpu=True)
    else:
        ram = psutil.virtual_memory().total
        against, cells = f"{ram / 1e9:.0f} GB of RAM, no GPU", needs(ram, gpu=False)
    return Examination(findings, cells, against)


def _without_libraries() -> Iterator[Finding]:
    if importlib.util.find_spec("packaging"):
        yield machine.python()
        yield from machine.dependencies()
    else:
        told = "is not installed, so versions are not compared"
        yield Finding(check="packaging", status=WARNING, message=told, fix="pip install packaging")
    yield from machine.disks()
    yield machine.memory()
    yield machine.cores()


def _facts(steps: Steps, name: str) -> dict[str, Any]:
    step = steps.get(name)
    return step.facts if step and step.facts is not None else {}


def _problem(steps: Steps, *names: str) -> str:
    """Why the first of some steps that did not work did not; "" when all worked."""
    for name in names:
        step = steps.get(name) or steps.get("end") or Step(None, "it could not be tried")
        if step.facts is None:
            return step.problem
    return ""


def _torch(steps: Steps) -> Iterator[Finding]:
    problem = _problem(steps, "import")
    if problem:
        yield Finding(check="torch", status=FAULT, message=problem, fix=_PAIR)
        return
    facts = _facts(steps, "import")
    built = f"for CUDA {facts['cuda']}" if facts["cuda"] else "for the CPU alone"
    told = f"{facts['version']}, built {built}"
    if not facts["available"] and shutil.which("nvidia-smi"):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield Finding(
            check="torch",
            status=WARNING,
            message=f"{told}; it sees no GPU, but there is an NVIDIA driver",
            fix="unset CUDA_VISIBLE_DEVICES" if hidden in ("", "-1") else _PAIR,
        )
        return
    yield Finding(check="torch", status=OK, message=told)


def _gpus(gpus: list[dict[str, Any]]) -> Iterator[Finding]:
    if not gpus:
        yield Finding(check="gpu", status=OK, message="none; models run on the CPU")
    for number, gpu in enumerate(gpus):
        told = (
            f"{gpu['name']}, {gpu['total'] / 1e9:.0f} GB, {gpu['free'] / 1e9:.0f} GB free, compute "
            f"capability {gpu['capability']}"
        )
        check = f"gpu {number}"
        if gpu["bf16"]:
            yield Finding(check=check, status=OK, message=f"{told}, bfloat16")
        else:
            told += "; no bfloat16 of its own"
            yield Finding(check=check, status=WARNING, message=told, fix="--dtype float16")


def _torchvision(steps: Steps) -> Iterator[Finding]:
    problem = _problem(steps, "torchvision")
    if problem:
        told = f"does not work beside this torch, and transformers cannot do without: {problem}"
        yield Finding(check="torchvision", status=FAULT, message=told, fix=_PAIR)
    else:
        told = f"{_facts(steps, 'torchvision')['version']}, its operators work"
        yield Finding(check="torchvision", status=OK, message=told)


def _transformers(steps: Steps, torchvision: Steps) -> Iterator[Finding]:
    broken_pair = bool(_problem(torchvision, "torchvision"))
    for check in ("transformers", "peft"):
        problem = _problem(steps, check)
        if problem:
            fix = _PAIR if broken_pair else machine.reinstalled(check)
            yield Finding(check=check, status=FAULT, message=problem, fix=fix)
            return
        told = _facts(steps, check)["version"]
        if check == "transformers":
            told += ", Qwen2.5-VL's classes import"
        yield Finding(check=check, status=OK, message=told)


def _attention(torch: Steps, transformers: Steps) -> Iterator[Finding]:
    problem = _problem(torch, "eager", "sdpa")
    if problem:
        yield Finding(check="attention", status=FAULT, message=f"sdpa: {problem}", fix=_PAIR)
        return
    told = f"eager and sdpa work on {_facts(torch, 'eager')['device']} in bfloat16"
    flash = transformers.get("flash_attention_2")
    why = (flash.facts or {}).get("problem", flash.problem) if flash else "could not be tried"
    if not why:
        yield Finding(check="attention", status=OK, message=f"{told}, flash_attention_2 too")
        return
    on_gpu = _facts(torch, "import")["available"]
    yield Finding(
        check="attention",
        status=OK,
        message=f"{told}; flash_attention_2 not: {why}",
        fix="pip install flash-attn --no-build-isolation" if on_gpu else "",
    )


def _bitsandbytes(steps: Steps | None) -> Iterator[Finding]:
    fix = "pip install 'lmme3dhf[quant]'"
    if steps is None:
        told = "bitsandbytes is not installed; 8 and 4 bits are optional"
        yield Finding(check="quantisation", status=OK, message=told, fix=fix)
        return
    problem = _problem(steps, "import", "8bit", "4bit")
    if problem:
        told = f"bitsandbytes does not work: {problem}"
        fix = "pip install --upgrade bitsandbytes"
        yield Finding(check="quantisation", status=WARNING, message=told, fix=fix)
    else:
        told = f"bitsandbytes {_facts(steps, 'import')['version']}, layers in 8 and 4 bits work"
        yield Finding(check="quantisation", status=OK, message=told)


def _decoder(steps: Steps) -> Iterator[Finding]:
    fix = machine.reinstalled("av")
    problem = _problem(steps, "av", "codecs", "h264")
    if problem:
        told = f"clips cannot be read by PyAV: {problem}"
        yield Finding(check="video", status=FAULT, message=told, fix=fix)
        return
    told = f"PyAV {_facts(steps, 'av')['version']} reads H.264"
    missing = _facts(steps, "codecs")["missing"]
    if missing:
        told += f"; it was built without {', '.join(missing)}"
        yield Finding(check="video", status=WARNING, message=told, fix=fix)
    else:
        yield Finding(check="video", status=OK, message=f"{told}; HEVC, VP9, AV1 and others there")


def _decord(steps: Steps | None) -> Iterator[Finding]:
    if steps is None:
        told = "not installed, and not needed"
    else:
        problem = _problem(steps, "decord")
        works = f"{_facts(steps, 'decord').get('version')} imports"
        told = f"{f'does not work ({problem})' if problem else works}; it is not needed"
    yield Finding(check="decord", status=OK, message=told)


def _offline_setting() -> str:
    """The setting that keeps the hub's library offline; "" for none."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return ""


def _hub(endpoint: str, offline_by: str, steps: Steps) -> Iterator[Finding]:
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN"
    by = "HF_ENDPOINT" if os.environ.get("HF_ENDPOINT") else "the default"
    told = f"{_without_secrets(endpoint)} ({by}), {token}"
    if offline_by:
        told += f"; not asked ({offline_by}): models come from folders and the cache"
        yield Finding(check="hub", status=OK, message=told)
        return
    problem = _problem(steps, "hub")
    if not problem:
        status = _facts(steps, "hub")["status"]
        yield Finding(check="hub", status=OK, message=f"{told}: answers ({status})")
        return
    problem = problem.replace(endpoint, _without_secrets(endpoint))
    yield Finding(
        check="hub",
        status=WARNING,
        message=f"{told}: no answer ({problem}); models in folders need none",
        fix=(
            "unset HF_ENDPOINT"
            if os.environ.get("HF_ENDPOINT")
            else "HF_ENDPOINT=A_MIRROR, or HF_HUB_OFFLINE=1 to use the cache alone"
        ),
    )


def _without_secrets(url: str) -> str:
    """An address without a user's name and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _model(name: str, folder: Path | None, steps: Steps) -> Iterator[Finding]:
    merge = "lmme3dhf merge RUN"
    if folder is None:
        told = f"{name}: no such folder"
        yield Finding(check="model", status=FAULT, message=told, fix="--model DIR")
        return
    problem = _problem(steps, "files", "metric", "manifest")
    problem = problem or _facts(steps, "manifest").get("damage")
    if problem:
        fix = f"{merge} (again), or copy the folder anew"
        yield Finding(check="model", status=FAULT, message=f"{folder}: {problem}", fix=fix)
        return
    files, metric = _facts(steps, "files"), _facts(steps, "metric")
    told = f"{folder}: {files['bytes'] / 1e9:.2f} GB of weights"
    if not files["manifest"]:
        told += ", no manifest: a plain base, or not merged by this project"
        yield Finding(check="model", status=WARNING, message=told, fix=merge)
        return
    told += ", every file as it was written"
    if not files["metric"]:
        yield Finding(check="model", status=WARNING, message=f"{told}; no metric.json", fix=merge)
    else:
        yield Finding(check="model", status=OK, message=told)
    if metric["decoder"] not in (None, "pyav", "pyav2"):
        yield Finding(
            check="model",
            status=WARNING,
            message=f"its scores belong to clips read by {metric['decoder']}, here PyAV reads them",
        )
