"""The doctor against libraries, hubs, folders and versions that are broken on purpose."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from lmme3dhf import doctor
from lmme3dhf.doctor import machine
from lmme3dhf.doctor.child import Step, tried
from lmme3dhf.doctor.finding import FAULT, OK, WARNING, Finding
from lmme3dhf.files import write_manifest
from lmme3dhf.models.card import METRIC, scales

ROOT = Path(__file__).resolve().parents[2]
# As a torchvision built for CUDA fails beside a torch built for the CPU alone.
BROKEN_PAIR = 'raise RuntimeError("operator torchvision::nms does not exist")'
# A torch that does as much as its probe asks for before it asks for tensors.
SOME_TORCH = """
__version__ = "2.99.0+cpu"
class version:
    cuda = None
class cuda:
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 0)
"""


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Puts modules of a name and content before the installed ones, for child processes."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def put(**modules: str) -> None:
        for name, content in modules.items():
            (folder / f"{name}.py").write_text(content, encoding="utf-8")

    return put


def only(findings) -> Finding:
    (finding,) = findings
    return finding


def test_the_broken_pair_is_told_with_the_command_that_mends_it(libraries):
    """Catches a pair that passes because both import, and a remedy that pins one of the two: only
    both together, unpinned, match.
    """
    libraries(torch=SOME_TORCH, torchvision=BROKEN_PAIR, transformers="import torchvision")
    told = tried({"torchvision": {}, "transformers": {}})
    finding = only(doctor._torchvision(told["torchvision"]))
    assert finding.status == FAULT
    assert "operator torchvision::nms does not exist" in finding.message
    assert finding.fix == "pip install --force-reinstall torch torchvision"
    # What fails by it is mended by the same command.
    finding = only(doctor._transformers(told["transformers"], told["torchvision"]))
    assert (finding.status, finding.check) == (FAULT, "transformers")
    assert finding.fix == "pip install --force-reinstall torch torchvision"


def test_a_library_that_cannot_load_its_own_is_told(libraries):
    """The pair's other way to fail: an OSError of the loader. Catches a probe that knows
    ImportError alone, whose child would end in a traceback.
    """
    libraries(
        torch=SOME_TORCH,
        torchvision='raise OSError("libc10_cuda.so: cannot open shared object file")',
    )
    finding = only(doctor._torchvision(tried({"torchvision": {}})["torchvision"]))
    assert finding.status == FAULT
    assert finding.message.endswith("OSError: libc10_cuda.so: cannot open shared object file")


@pytest.mark.parametrize(
    ("torch", "told"),
    [
        ("import os; os.abort()", "crashes (SIGABRT)"),
        ("import time; time.sleep(60)", "hangs"),
        ("raise ImportError('libtorch.so:\\n not found')", "ImportError: libtorch.so: not found"),
        ("raise MemoryError('all of it')", "MemoryError: all of it"),
        ("import sys; sys.exit(7)", "status 7"),
        ("", "AttributeError"),
    ],
)
def test_a_torch_that_does_not_work_is_a_finding(libraries, torch, told):
    """Catches an examination that ends with the library, and one that waits for ever."""
    libraries(torch=torch)
    finding = only(doctor._torch(tried({"torch": {}}, patience_s=2.0)["torch"]))
    assert finding.status == FAULT
    assert told in finding.message
    assert "\n" not in finding.message
    assert finding.fix == "pip install --force-reinstall torch torchvision"


def test_a_slow_library_is_not_taken_for_one_that_hangs(libraries):
    """It computes for longer than patience lasts. Catches a deadline that calls a busy
    machine broken.
    """
    slow = "import time\nend = time.process_time() + 2.5\nwhile time.process_time() < end: pass\n"
    libraries(torch=slow + SOME_TORCH)
    steps = tried({"torch": {}}, patience_s=2.0)["torch"]
    assert steps["import"].facts["version"] == "2.99.0+cpu"


def test_no_process_outlives_its_limit(libraries):
    """One that computes for ever. Catches a child that is left behind."""
    libraries(torch="while True: pass")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    steps = tried({"torch": {}}, patience_s=2.0, limit_s=2.0)["torch"]
    assert steps["import"].facts is None
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_step_after_a_good_one_does_not_spoil_it(libraries):
    """Torch imports and then crashes in an operation. Catches a crash that is blamed on the
    import, which would send people to install it anew.
    """
    crash = "\ndef randn(*shape, **options):\n    import os\n    os.abort()\n"
    libraries(torch=SOME_TORCH + crash)
    steps = tried({"torch": {}})["torch"]
    assert steps["import"].facts["version"] == "2.99.0+cpu"
    assert steps["gpus"].facts == {"gpus": []}
    assert steps["eager"] == Step(None, "it crashes (SIGABRT)")
    finding = only(doctor._attention(steps, {}))
    assert finding.status == FAULT
    assert "SIGABRT" in finding.message


@pytest.mark.parametrize(
    ("av", "status", "told"),
    [
        (None, OK, "reads H.264"),
        ("raise ImportError('libavcodec.so.62')", FAULT, "libavcodec.so.62"),
        ("import os; os.abort()", FAULT, "crashes (SIGABRT)"),
        ("__version__ = '18'", FAULT, "AttributeError"),
    ],
)
def test_the_decoder_is_tried(libraries, av, status, told):
    """The installed one reads a clip; broken ones are told. Catches a decoder that counts as there
    because a package of that name is.
    """
    if av is not None:
        libraries(av=av)
    finding = only(doctor._decoder(tried({"decoder": {}})["decoder"]))
    assert finding.status == status
    assert told in finding.message
    assert bool(finding.fix) == (status == FAULT)


def test_missing_codecs_are_named():
    """By the names that clips have. Catches a build without AV1 that is called complete."""
    steps = {
        "av": Step({"version": "18.1.0"}),
        "codecs": Step({"missing": ["hevc", "av1"]}),
        "h264": Step({"colours": []}),
    }
    finding = only(doctor._decoder(steps))
    assert finding.status == WARNING
    assert "without hevc, av1" in finding.message


def test_quantisation_that_does_not_work_is_a_warning(libraries):
    """It is optional: absent it is fine, broken it is told. Catches an optional library whose fault
    makes the whole examination fail.
    """
    assert only(doctor._bitsandbytes(None)).status == OK
    assert "pip install" in only(doctor._bitsandbytes(None)).fix
    libraries(bitsandbytes='raise RuntimeError("no kernel image")')
    finding = only(doctor._bitsandbytes(tried({"bitsandbytes": {}})["bitsandbytes"]))
    assert finding.status == WARNING
    assert "no kernel image" in finding.message


@pytest.mark.parametrize("capability", ["8.0", "7.5"])
def test_gpus_are_described(capability):
    """Catches an older card for which bfloat16 is promised."""
    gpu = {"name": "Card", "total": 48e9, "free": 40e9, "capability": capability}
    finding = only(doctor._gpus([gpu | {"bf16": capability == "8.0"}]))
    assert "Card, 48 GB, 40 GB free" in finding.message
    assert capability in finding.message
    assert (finding.status, finding.fix) == (
        (OK, "") if capability == "8.0" else (WARNING, "--dtype float16")
    )


@contextlib.contextmanager
def answering(status: int):
    """A server on this machine that answers every HEAD with a status."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *about):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def hub_finding(endpoint: str) -> Finding:
    steps = tried({"hub": {"endpoint": endpoint, "timeout_s": 0.5}})["hub"]
    return only(doctor._hub(endpoint, "", steps))


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_hub_that_answers_is_there(monkeypatch, status):
    """Whatever it answers. Catches a mirror without a front page that counts as unreachable, and a
    token or a password in the output.
    """
    with answering(status) as endpoint:
        plain = endpoint.replace("user:secret@", "")
        monkeypatch.setenv("HF_ENDPOINT", plain)
        monkeypatch.setenv("HF_TOKEN", "hf_veryverysecret")
        finding = hub_finding(plain)
        hidden = only(doctor._hub(endpoint, "--offline", {}))
    assert finding.status == OK
    assert f"answers ({status})" in finding.message
    assert "HF_TOKEN is set" in finding.message
    assert "secret" not in finding.line() + hidden.line()


def test_a_hub_that_does_not_answer_is_a_warning_with_what_to_set(monkeypatch):
    """A closed port, and one that takes the call and stays silent. Catches an examination that
    fails without a network, which scoring with a folder does not need, and one that waits.
    """
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        finding = hub_finding(closed_url)
        assert finding.status == WARNING
        assert "refused" in finding.message
        assert "HF_HUB_OFFLINE=1" in finding.fix
        closed.listen()
        monkeypatch.setenv("HF_ENDPOINT", closed_url)
        finding = hub_finding(closed_url)
    assert finding.status == WARNING
    assert "timed out" in finding.message
    assert finding.fix == "unset HF_ENDPOINT"
    assert hub_finding("hub.example").status == WARNING  # no address


def test_offline_the_hub_is_not_asked(monkeypatch):
    """Catches a call home from a machine that is set to be offline."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert doctor._offline_setting() == ""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finding = only(doctor._hub("http://127.0.0.1:1", doctor._offline_setting(), {}))
    assert finding.status == OK
    assert "HF_HUB_OFFLINE" in finding.message


def distribution(folder: Path, name: str, version: str) -> None:
    """What pip leaves of a package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "version", "told", "fix"),
    [
        ("transformers", "4.57.6", "CVE-2026-4372", "transformers<6,>=5.19'"),
        ("transformers", "5.4.0", "expected <6,>=5.19", "transformers<6,>=5.19'"),
        ("peft", "0.10.0", "expected >=0.18", "pip install 'peft>=0.18'"),
        ("torch", "2.4.0", "expected >=2.10", "pip install --force-reinstall torch torchvision"),
    ],
)
def test_versions_are_compared_with_what_is_declared(
    tmp_path, monkeypatch, name, version, told, fix
):
    """With old ones before the installed. Catches bounds that are copied into the doctor and age,
    and a vulnerable transformers that passes.
    """
    distribution(tmp_path, name, version)
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong = [finding for finding in machine.dependencies() if finding.status == FAULT]
    finding = only(wrong)
    assert finding.check == name
    assert version in finding.message
    assert told in finding.message
    assert finding.fix.endswith(fix)
    assert ("CVE" in finding.message) == (version == "4.57.6")


def test_what_is_installed_here_is_right():
    """The tests run in the declared environment. Catches a comparison that refuses everything, and
    an absent extra that counts as broken.
    """
    findings = list(machine.dependencies())
    assert all(finding.status == OK for finding in findings), findings
    extras = {f.check.removeprefix("extra ") for f in findings if f.check.startswith("extra ")}
    assert extras >= {"demo", "distributed", "quant", "speed", "test"}
    declared = next(f for f in findings if f.check == "dependencies")
    assert int(declared.message.split()[0]) > 15
    assert machine.python().status == OK


def test_a_project_that_is_not_installed_is_told(monkeypatch):
    """Catches a traceback of importlib.metadata in a checkout that was only unpacked."""
    monkeypatch.setattr(machine, "PROJECT", "lmme3dhf-that-nobody-installed")
    assert machine.python().status == FAULT
    assert "pip install -e ." in machine.python().fix
    assert list(machine.dependencies()) == []


def test_threads_beyond_the_cores_are_told(monkeypatch):
    """Catches a hint that is never given."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert machine.cores().status == WARNING
    assert machine.cores().fix.startswith("OMP_NUM_THREADS=")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.cores().status == OK


def test_a_full_disk_is_told(tmp_path):
    """More is wanted than any disk has. Catches room that is looked up in a folder that does not
    exist yet, which is an error of the system.
    """
    finding = machine._disk("disk", tmp_path / "not" / "made", 10**9, "HF_HOME=DIR")
    assert (finding.status, finding.fix) == (WARNING, "HF_HOME=DIR")
    assert machine._disk("disk", tmp_path / "not" / "made", 0, "").status == OK


@pytest.fixture
def model(tmp_path) -> Path:
    """A whole model folder as merging leaves it, with a handful of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}', encoding="utf-8")
    save_file({"weight": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    (folder / METRIC).write_text(json.dumps(scales({})), encoding="utf-8")
    write_manifest(folder)
    return folder


def flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def old_metric(folder: Path) -> None:
    (folder / METRIC).unlink()
    write_manifest(folder)


def broken_metric(folder: Path) -> None:
    (folder / METRIC).write_text("{", encoding="utf-8")
    write_manifest(folder)


def other_decoder(folder: Path) -> None:
    (folder / METRIC).write_text(json.dumps(scales({}) | {"decoder": "decord"}), encoding="utf-8")
    write_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "statuses", "told"),
    [
        (lambda folder: None, [OK], "every file as it was written"),
        (flip_a_bit, [FAULT], "model.safetensors is not what was written"),
        (lambda folder: (folder / "model.safetensors").unlink(), [FAULT], "no weights"),
        (lambda folder: (folder / "config.json").unlink(), [FAULT], "no config.json"),
        (lambda folder: (folder / "manifest.json").unlink(), [WARNING], "no manifest"),
        (old_metric, [WARNING], "no metric.json"),
        (broken_metric, [FAULT], "metric.json"),
        (other_decoder, [OK, WARNING], "decord"),
    ],
)
def test_a_damaged_model_folder_is_told(model, damage, statuses, told):
    """Catches one flipped bit in the weights, which loads and scores."""
    damage(model)
    steps = tried({"model": {"folder": str(model)}})["model"]
    findings = list(doctor._model(str(model), model, steps))
    assert [finding.status for finding in findings] == statuses
    assert told in findings[-1].message


def test_a_model_that_is_not_there_is_told():
    """Catches a mistyped path that passes as nothing to look at."""
    assert only(doctor._model("nowhere", None, {})).status == FAULT


def test_the_command_ends_with_status_1_and_imports_nothing_heavy(libraries, tmp_path):
    """A whole examination with a torch that crashes. Catches a verb that goes down with it, or
    that imports torch itself.
    """
    libraries(torch="import os; os.abort()", torchvision=BROKEN_PAIR, transformers=BROKEN_PAIR)
    code = """
import sys
from lmme3dhf.cli import main
status = main(["doctor", "--offline", "--json", sys.argv[1]])
print(sorted({"torch", "transformers", "av", "torchvision"} & set(sys.modules)))
sys.exit(status)
"""
    out = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_TOKEN": "hf_veryverysecret"},
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    *lines, modules = done.stdout.splitlines()
    assert modules == "[]"
    record = json.loads(out.read_text(encoding="utf-8"))
    found = {entry["check"]: entry for entry in record["findings"]}
    assert record["faults"] >= 1
    assert [entry["check"] for entry in record["findings"] if entry["status"] == FAULT] == ["torch"]
    assert found["video"]["status"] == OK
    assert "hf_veryverysecret" not in done.stdout + out.read_text(encoding="utf-8")
    told = next(line for line in lines if line.startswith(FAULT))
    assert told.split()[1] == "torch"
    assert told.endswith("-> pip install --force-reinstall torch torchvision")
    assert sum(line.startswith((OK, WARNING, FAULT)) for line in lines) == len(record["findings"])
    assert len(record["memory"]["needs"]) == 12


def test_the_installed_pair_works():
    """The real torch and torchvision. Catches a probe that finds a fault in a healthy pair."""
    told = tried({"torch": {}, "torchvision": {}})
    findings = [*doctor._torch(told["torch"]), *doctor._torchvision(told["torchvision"])]
    findings += doctor._attention(told["torch"], {})
    assert [finding.status for finding in findings if finding.status == FAULT] == [], findings
    assert "sdpa" in findings[-1].message


@pytest.mark.slow
def test_a_healthy_installation_has_no_faults():
    """Everything, as a user runs it. Catches a doctor that nobody believes."""
    examination = doctor.examine(offline=True)
    assert examination.faults == [], examination.text()
    checks = [finding.check for finding in examination.findings]
    assert checks == list(dict.fromkeys(checks))
    assert {"torchvision", "transformers", "attention", "video", "hub"} <= set(checks)
