"""What does folding an adapter into bfloat16 weights cost, by depth, width and size of the update?

    python scripts/merge_study.py --out docs/merging
    python scripts/merge_study.py --out docs/merging --memory true

Random models of Qwen2.5-VL's proportions get adapters of a given size (the Frobenius norm of the
update, relative to its weight's) on all linear layers of the language model. Clips are visual
tokens in which a hidden quality shifts the mean; the score head and the rows of the level words are
fitted to it on the adapted model's states, so that scores spread like opinion scores and some clips
lie at the edge between two levels. Then three ways to store the model are compared with the adapted
one, all in float32 arithmetic: the adapter folded into bfloat16 weights, folded in with the adapted
layers in float32, and kept beside. The last column is the adapted model itself in bfloat16
arithmetic: what the same model differs by without any merging.

`--runs` measures the size of the updates of trained runs. `--memory` measures the peak memory of a
merge instead, each in a process of its own.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import functional

from lmme3dhf.files import replace_file, write_json
from lmme3dhf.models.configuration import LMME3DHFConfig, MetricConfig
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.merge import merge_adapter
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.models.rounding import all_outputs, differences, in_float32, text_outputs
from lmme3dhf.models.tiny import TINY_BASE
from lmme3dhf.models.weights import Adapter, Weights
from lmme3dhf.stages.run import read_probe, save_probe

BF16 = torch.bfloat16
DEPTHS, WIDTHS, UPDATES = (4, 12, 28), (256, 512), (0.004, 0.03, 0.15)
RANK, ALPHA = 8, 32
VIDEO, LEVELS = 10, (11, 12, 13, 14, 15)  # tokens
GRID = (1, 8, 8)  # 16 visual tokens a clip
FITTED, PROBED, BATCH = 96, 64, 16
# Linear layers of Qwen2.5-VL-7B's language model, and its adapters of rank 8.
LINEARS_7B, ADAPTERS_7B = 6_525_288_448, 20_185_088
PROPORTION = 37 / 7  # of the MLP's width to the model's, as at 7B: 18,944 to 3,584


def random_model(layers: int, hidden: int, vocabulary: int = 2048) -> LMME3DHF:
    """A model without a tower, drawn as Qwen2.5 starts (normal, 0.02), in bfloat16."""
    heads = max(2, hidden // 128)
    half = hidden // heads // 2
    config = LMME3DHFConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": int(hidden * PROPORTION),
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 7),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8],
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 80,
            "intermediate_size": 80,
            "num_heads": 1,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [0],
        },
        image_token_id=VIDEO - 1,
        video_token_id=VIDEO,
        vision_start_token_id=VIDEO - 2,
        tie_word_embeddings=False,
    )
    config.set_metric(MetricConfig.from_dict({"level_token_ids": LEVELS}))
    model = LMME3DHF(config, tower=False)
    model.model.language_model.to(BF16)
    model.lm_head.to(BF16)
    return model.eval().requires_grad_(False)


def clips(count: int, hidden: int, seed: int) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
    """Batches of one question on each clip, and the clips' opinion scores / 100.

    Returns:
        The batches, and (count,) scores of mean 50 and standard deviation 15 points.
    """
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(hidden, generator=torch.Generator().manual_seed(0))
    words = torch.randint(100, 2048, (8,), generator=torch.Generator().manual_seed(1))
    quality = torch.randn(count, generator=draw)
    tokens = math.prod(GRID) // 4
    ids = torch.cat([torch.tensor([VIDEO - 2]), torch.full((tokens,), VIDEO), words])
    batches = []
    for start in range(0, count, BATCH):
        z = quality[start : start + BATCH]
        seen = torch.randn(len(z), tokens, hidden, generator=draw) + z[:, None, None] * direction
        length = len(ids)
        batches.append(
            {
                "input_ids": ids.repeat(len(z), 1),
                "seen_until": torch.full((len(z), length), length),
                "mm_token_type_ids": (ids == VIDEO).long().repeat(len(z), 1) * 2,
                "video_grid_thw": torch.tensor([GRID]).repeat(len(z), 1),
                "second_per_grid_ts": torch.ones(len(z)),
                "video_embeds": (0.02 * seen).flatten(0, 1),
                "reads": torch.full((len(z), 1), length - 1),
                "scored": torch.arange(len(z)),
                "levels": torch.arange(len(z)),
            }
        )
    return batches, 0.5 + 0.15 * quality


def adapt(model: LMME3DHF, size: float, seed: int) -> PeftModel:
    """Adds adapters whose updates have this Frobenius norm, relative to their weights'."""
    adapted = add_adapters(model, rank=RANK, alpha=ALPHA, dropout=0.0, language=True, vision=False)
    torch.manual_seed(seed)
    for layer in adapted_layers(adapted):
        b = layer.lora_B["default"].weight
        b.data.normal_()
        norm = (
            layer.get_delta_weight("default").norm() / layer.get_base_layer().weight.float().norm()
        )
        b.data *= size / norm
    return adapted.eval().requires_grad_(False)


def adapted_layers(model: torch.nn.Module) -> list[LoraLayer]:
    """The layers with an adapter."""
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def fit(model: LMME3DHF, batches: list[dict[str, torch.Tensor]], target: torch.Tensor) -> None:
    """Fits the score head, and the level words' rows of the LM head, to the clips' scores."""
    with torch.no_grad(), in_float32(model):
        states = []
        for batch in batches:
            left_out = ("scored", "levels")
            states.append(model.hidden_at(**{k: t for k, t in batch.items() if k not in left_out}))
    hidden = torch.cat(states).flatten(0, 1)
    torch.manual_seed(0)
    model.heads["score"].reset_parameters()
    head = model.heads["score"].requires_grad_(True)
    rows = model.lm_head.weight[list(LEVELS)].float().requires_grad_(True)
    edges = torch.quantile(target, torch.tensor([0.2, 0.4, 0.6, 0.8]))
    level = torch.bucketize(target, edges)
    optimizer = torch.optim.Adam([*head.parameters(), rows], lr=2e-3)
    for _ in range(400):
        loss = (head(hidden) - target).abs().mean()
        loss = loss + functional.cross_entropy(functional.linear(hidden, rows), level)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.requires_grad_(False)
    model.lm_head.weight.data[list(LEVELS)] = rows.detach().to(BF16)
    model.missing_parts = []


def outputs(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is compared."""
    return text_outputs(model, batch, LEVELS)


@torch.no_grad()
def compared(layers: int, hidden: int, size: float) -> dict[str, Any]:
    """One row of the study."""
    torch.manual_seed(layers * hidden)
    model = random_model(layers, hidden)
    adapted = adapt(model, size, seed=1)
    with torch.enable_grad():
        fit(model, *clips(FITTED, hidden, seed=2))
    probe, target = clips(PROBED, hidden, seed=3)
    trained = all_outputs(adapted, probe, outputs)
    half = [outputs(adapted, batch) for batch in probe]
    arithmetic = {
        name: torch.cat([o[name] if name == "levels" else o[name].flatten() for o in half])
        for name in trained
    }
    folded = all_outputs(adapted, probe, outputs, folded=True)
    for layer in adapted_layers(adapted):
        base = layer.get_base_layer()
        base.weight.data = base.weight.float() + layer.get_delta_weight("default")
        layer.enable_adapters(False)
    wide = all_outputs(adapted, probe, outputs)
    linears = sum(layer.get_base_layer().weight.numel() for layer in adapted_layers(adapted))
    factors = sum(p.numel() for name, p in adapted.named_parameters() if ".lora_" in name)
    points = 100 * trained["scores"]
    return {
        "layers": layers,
        "hidden": hidden,
        "update": size,
        "score_deviation": float(points.std()),
        "fit_correlation": float(torch.corrcoef(torch.stack([points, target]))[0, 1]),
        "folded": differences(folded, trained),
        "float32_linears": differences(wide, trained),
        "arithmetic": differences(arithmetic, trained),
        "extra_mb": {"float32_linears": 2 * linears / 1e6, "adapter": 4 * factors / 1e6},
    }


def update_sizes(run: Path) -> dict[str, float]:
    """Sizes of a trained run's updates, relative to their weights."""
    record = json.loads((run / "run.json").read_bytes())
    base, adapter = Weights(Path(record["model"])), Adapter(run / "adapter")
    sizes = [
        float(adapter.update(f"{name}.weight").norm())
        / float(base.read(f"{name}.weight", torch.float32).norm())
        for name in adapter.factors
    ]
    found = torch.tensor(sizes).quantile(torch.tensor([0.0, 0.5, 1.0]))
    return dict(zip(("smallest", "median", "largest"), found.tolist(), strict=True))


# Memory


def prepare(hidden: int, work: Path) -> float:
    """Writes a base of 28 layers and 152,064 tokens, an adapter and a probe; returns the size of
    the weights in MB.
    """
    base = work / "base"
    torch.manual_seed(0)
    model = random_model(28, hidden, 152_064)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    whole = LMME3DHF(model.config).to(BF16)
    whole.model.language_model, whole.lm_head = model.model.language_model, model.lm_head
    state = {k: t for k, t in whole.state_dict().items() if not k.startswith("heads.score")}
    whole.save_pretrained(base, state_dict=state)
    for file in TINY_BASE.iterdir():
        if file.suffix in (".json", ".jinja") and not (base / file.name).exists():
            (base / file.name).write_bytes(file.read_bytes())
    adapt(model, 0.01, seed=1).save_pretrained(work / "adapter")
    save_probe(work, clips(16, hidden, seed=3)[0])
    return size / 1e6


def merged_in_a_process(hidden: int, work: Path) -> dict[str, Any]:
    """Peak memory of one merge."""
    size = prepare(hidden, work)
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(work)], check=True, capture_output=True, text=True
    )
    peak = json.loads(done.stdout.splitlines()[-1])
    return {"hidden": hidden, "weights_mb": size, **peak}


def child(work: Path) -> None:
    """Merges and prints the peaks: memory of the process's own, and with mapped files."""
    peaks: dict[str, float] = {}
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("RssAnon", "VmRSS"):
                    peaks[name] = max(peaks.get(name, 0), int(value.split()[0]) * 1024 / 1e6)

    thread = threading.Thread(target=sample)
    thread.start()
    threading.Event().wait(0.1)
    before = dict(peaks)
    probe = read_probe(work)
    metric = MetricConfig.from_dict({"level_token_ids": LEVELS})
    report = merge_adapter(work / "base", work / "adapter", work / "out", metric, probe, BF16)
    stop.set()
    thread.join()
    names = {"RssAnon": "own_mb", "VmRSS": "with_mapped_files_mb"}
    found = {names[name]: peaks[name] for name in names}
    print(json.dumps({"libraries_mb": before["RssAnon"], "form": report["form"], **found}))


def memory_study(widths: list[int]) -> list[dict[str, Any]]:
    """The peaks by width."""
    rows = []
    for hidden in widths:
        with tempfile.TemporaryDirectory() as work:
            rows.append(merged_in_a_process(hidden, Path(work)))
        print(json.dumps(rows[-1]), flush=True)
    return rows


# What is written


def table(rows: list[dict[str, Any]]) -> str:
    """The study as a Markdown table."""
    lines = [
        "| layers | width | update | folded: points, max (mean) | levels changed | pairs swapped "
        "| relative | float32 linears: points, max | MB more | adapter: points | MB more "
        "| bf16 arithmetic: points, max (mean) |",
        "|" + "---:|" * 12,
    ]
    for row in rows:
        folded, wide, own = row["folded"], row["float32_linears"], row["arithmetic"]
        cells = [
            row["layers"],
            row["hidden"],
            f"{row['update']:g}",
            f"{folded['score_points_max']:.2f} ({folded['score_points_mean']:.2f})",
            f"{folded['level_changes']} of {folded['level_reads']}",
            f"{folded['swapped_pairs']} of {folded['pairs']}",
            f"{folded['relative_difference']:.4f}",
            f"{wide['score_points_max']:.1e}",
            f"{row['extra_mb']['float32_linears']:.0f}",
            "0",
            f"{row['extra_mb']['adapter']:.1f}",
            f"{own['score_points_max']:.2f} ({own['score_points_mean']:.2f})",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Largest difference of a score by depth, one line a width and update."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    widths = sorted({row["hidden"] for row in rows})
    updates = sorted({row["update"] for row in rows})
    figure, axes = pyplot.subplots(
        1, len(widths), figsize=(3 * len(widths), 3), sharey=True, squeeze=False
    )
    for axis, hidden in zip(axes[0], widths, strict=True):
        for update in updates:
            line = [r for r in rows if r["hidden"] == hidden and r["update"] == update]
            depth = [row["layers"] for row in line]
            worst = [row["folded"]["score_points_max"] for row in line]
            axis.plot(depth, worst, marker="o", label=f"update {update:g}")
        axis.axhline(0.5, color="black", linestyle=":", linewidth=1)
        axis.set(
            title=f"width {hidden}", xlabel="layers", xticks=sorted({r["layers"] for r in rows})
        )
    axes[0, 0].set(ylabel="largest change of a score\n(points of MOS)")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(argv: list[str] | None = None) -> None:
    """Runs the study, or measures memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/merge_study"))
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--updates", type=float, nargs="+", default=UPDATES)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="trained runs to measure")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.child)
        return
    if args.memory:
        write_json(args.out / "memory.json", memory_study(list(args.widths)))
        return
    rows = []
    for hidden in args.widths:
        for layers in args.depths:
            for size in args.updates:
                rows.append(compared(layers, hidden, size))
                print(json.dumps(rows[-1]), flush=True)
    runs = {run.name: update_sizes(run) for run in args.runs}
    computed = {"float32_linears": 2 * LINEARS_7B / 1e6, "adapter": 4 * ADAPTERS_7B / 1e6}
    write_json(args.out / "study.json", {"rows": rows, "runs": runs, "extra_mb_at_7b": computed})
    replace_file(args.out / "study.md", table(rows))
    plot(rows, args.out / "study.svg")
    print(table(rows))


if __name__ == "__main__":
    main()
