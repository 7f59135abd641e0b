"""How much memory a model needs, against what a machine has: arithmetic on the published geometry,
nothing is loaded.

Weights are exact. They stand as `models.loading` puts them there: bfloat16, or the language model's
linear layers in 8 bits (one byte a weight and a float32 scale an output) or 4 bits (NF4: half a
byte, a scale of one byte for each 64 weights, and a float32 for each 256 scales); everything else
stays bfloat16, score head and saliency decoder float32.

Working memory is that of one clip: 8 frames of 504 x 504, which are 1,296 visual tokens, with its
questions and, for scoring, the tree of all distortion answers. With S tokens, width h and MLP width
i, in bytes:

    a layer, forward     2 S (4 i + 8 h): the gated MLP's four tensors, the residual stream and the
                         norm's copies in bfloat16 and float32; the tower's likewise
    cache, scoring       4 S (width of the keys) (layers)
    mask                 2 S^2
    training             16 a value of adapters and head, with gradients and Adam; under gradient
                         checkpointing 2 S h a layer, and twice a forward layer. The tower is not
                         loaded: its features are stored

A GPU also holds its own context. Working memory is an estimate; fragmentation is not counted.
"""

from dataclasses import dataclass

LOADS = ("bf16", "8bit", "4bit")
JOBS = ("scoring", "training stage 1 or 2")
# Bytes of a quantised weight, without the 8-bit scales, which go by outputs.
_WEIGHT_BYTES = {"bf16": 2.0, "8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
_FRAMES, _SIDE_PX = 8, 504
_QUESTION_TOKENS = 124  # three questions with system message and chat format
_ANSWER_TOKENS = 1200  # the tree of the 256 valid answers
_PARTS = 20_000_000  # values of score head and saliency decoder together, at most
_GPU_CONTEXT = 1.0e9
_LORA_RANK = 8


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A Qwen2.5-VL as published (`config.json` of Qwen/Qwen2.5-VL-*-Instruct).

    Attributes:
        name: Its size in words.
        hidden: Width of the language model.
        layers: Its layers.
        intermediate: Width of its MLP.
        heads: Attention heads.
        key_heads: Heads of keys and values.
        vocabulary: Tokens.
        tied: Whether the LM head is the embedding.
        vision: Width of the vision tower.
        blocks: Its blocks.
        vision_intermediate: Width of its MLP.
        patch_px: Side of a patch.
        pair: Frames that are joined in a patch.
        merge: Patches along the side of a merged block.
    """

    name: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool
    vision: int = 1280
    blocks: int = 32
    vision_intermediate: int = 3420
    patch_px: int = 14
    pair: int = 2
    merge: int = 2

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values."""
        return self.hidden // self.heads * self.key_heads

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the linear layers in one layer of the language model."""
        h, i = self.hidden, self.intermediate
        return ((h, h), (h, self.keys), (h, self.keys), (h, h), (h, i), (h, i), (i, h))

    @property
    def quantised(self) -> int:
        """Weights that a quantised model holds in 8 or 4 bits."""
        return self.layers * sum(a * b for a, b in self.linears)

    @property
    def language(self) -> int:
        """Parameters of the language model with its head."""
        h = self.hidden
        biases, norms = h + 2 * self.keys, 2 * h
        tables = (1 if self.tied else 2) * self.vocabulary * h
        return self.quantised + self.layers * (biases + norms) + h + tables

    @property
    def tower(self) -> int:
        """Parameters of the vision tower with its merger."""
        v, i, merged = self.vision, self.vision_intermediate, self.merge**2 * self.vision
        attention = v * 3 * v + 3 * v + v * v + v
        mlp = 3 * v * i + 2 * i + v
        merger = v + merged * merged + merged + merged * self.hidden + self.hidden
        return (
            3 * self.pair * self.patch_px**2 * v + self.blocks * (attention + mlp + 2 * v) + merger
        )

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.language + self.tower

    @property
    def adapters(self) -> int:
        """Values of the adapters on the language model's linear layers, at the paper's rank."""
        return self.layers * _LORA_RANK * sum(a + b for a, b in self.linears)


GEOMETRIES = (
    Geometry(
        name="3B",
        hidden=2048,
        layers=36,
        intermediate=11008,
        heads=16,
        key_heads=2,
        vocabulary=151936,
        tied=True,
    ),
    Geometry(
        name="7B",
        hidden=3584,
        layers=28,
        intermediate=18944,
        heads=28,
        key_heads=4,
        vocabulary=152064,
        tied=False,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Need:
    """One cell of the table.

    Attributes:
        model: Size of the model.
        load: bf16, 8bit or 4bit.
        job: One of `JOBS`.
        weights: Bytes of the weights.
        working: Bytes that the work on one clip takes beside them.
        total: Both, with the GPU's own context where there is one.
        fits: Whether the machine has as much.
    """

    model: str
    load: str
    job: str
    weights: int
    working: int
    total: int
    fits: bool


def weight_bytes(geometry: Geometry, load: str, *, tower: bool) -> float:
    """Bytes of the weights as they are loaded, without head and decoder.

    Args:
        geometry: The model.
        load: One of `LOADS`.
        tower: Whether the vision tower is there.
    """
    values = geometry.parameters if tower else geometry.language
    quantised = geometry.quantised * _WEIGHT_BYTES[load]
    if load == "8bit":
        quantised += 4 * geometry.layers * sum(outputs for _, outputs in geometry.linears)
    return quantised + 2 * (values - geometry.quantised)


def _layer_bytes(tokens: int, width: int, intermediate: int) -> int:
    return 2 * tokens * (4 * intermediate + 8 * width)


def scoring_bytes(geometry: Geometry) -> int:
    """Working memory of scoring one clip."""
    patches = (_SIDE_PX // geometry.patch_px) ** 2 * _FRAMES // geometry.pair
    tokens = patches // geometry.merge**2 + _QUESTION_TOKENS + _ANSWER_TOKENS
    language = (
        _layer_bytes(tokens, geometry.hidden, geometry.intermediate)
        + 4 * tokens * geometry.keys * geometry.layers
        + 2 * tokens**2
    )
    # The tower is through before the language model begins.
    return max(language, _layer_bytes(patches, geometry.vision, geometry.vision_intermediate))


def training_bytes(geometry: Geometry) -> int:
    """Working memory of a step of stage 1 or 2 on one clip, adapters and optimiser included."""
    patches = (_SIDE_PX // geometry.patch_px) ** 2 * _FRAMES // geometry.pair
    tokens = patches // geometry.merge**2 + _QUESTION_TOKENS
    return (
        16 * (geometry.adapters + _PARTS)
        + 2 * tokens * geometry.hidden * geometry.layers
        + 2 * _layer_bytes(tokens, geometry.hidden, geometry.intermediate)
        + 2 * tokens**2
    )


def needs(available: int, *, gpu: bool) -> list[Need]:
    """Every model, load and job, against the memory of a machine.

    Args:
        available: Bytes of the GPU, or of the RAM where there is none.
        gpu: Which of the two.
    """
    rows = []
    for geometry in GEOMETRIES:
        for load in LOADS:
            for job in JOBS:
                scoring = job == JOBS[0]
                weights = weight_bytes(geometry, load, tower=scoring)
                weights += 4 * _PARTS if scoring else 0
                working = scoring_bytes(geometry) if scoring else training_bytes(geometry)
                total = weights + working + (_GPU_CONTEXT if gpu else 0)
                rows.append(
                    Need(
                        model=geometry.name,
                        load=load,
                        job=job,
                        weights=round(weights),
                        working=working,
                        total=round(total),
                        fits=total <= available,
                    )
                )
    return rows


def table(rows: list[Need], where: str) -> list[str]:
    """The rows as lines of text.

    Args:
        rows: From `needs`.
        where: What they were compared with.
    """
    lines = [f"memory in GB for one clip of 8 frames, against {where}:"]
    lines.append(f"  {'model':<6}{'load':<6}{'scoring':>14}{'training 1, 2':>18}")
    for scoring, training in zip(rows[::2], rows[1::2], strict=True):
        cells = [f"{r.total / 1e9:.1f} {'fits' if r.fits else 'no'}" for r in (scoring, training)]
        lines.append(f"  {scoring.model:<6}{scoring.load:<6}{cells[0]:>14}{cells[1]:>18}")
    return lines
