"""The saliency decoder alone: shapes, range, gradients, and that each place reads its own place."""

import pytest
import torch

from lmme3dhf.models.saliency_decoder import SaliencyDecoder

VISION, TEXT = 20, 24


@pytest.fixture(scope="module")
def decoder() -> SaliencyDecoder:
    torch.manual_seed(0)
    return SaliencyDecoder(vision_width=VISION, text_width=TEXT, width=32).eval()


def features(batch: int, views: int, h: int, w: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, views, h, w, TEXT, generator=generator)
    taps = [torch.randn(batch, views, 2 * h, 2 * w, VISION, generator=generator) for _ in range(3)]
    return tokens, taps


@torch.no_grad()
def change(decoder, tokens, taps, other_tokens, other_taps) -> torch.Tensor:
    return (decoder(tokens, taps) - decoder(other_tokens, other_taps)).abs()


def centre(changed_HW: torch.Tensor) -> tuple[float, float]:
    """Row and column around which a change lies, in cells."""
    weight = changed_HW / changed_HW.sum()
    rows, columns = torch.arange(len(changed_HW)), torch.arange(changed_HW.shape[1])
    return float(weight.sum(1) @ rows.float()), float(weight.sum(0) @ columns.float())


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 3, 3, 5), (1, 1, 1, 1), (2, 2, 5, 3)])
def test_eight_cells_a_token_in_zero_to_one(decoder, shape):
    """Catches sides swapped (odd and unequal ones), views and batch mixed up, and an output that is
    not a map.
    """
    batch, views, h, w = shape
    with torch.no_grad():
        maps = decoder(*features(*shape))
    assert maps.shape == (batch, views, 8 * h, 8 * w)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_fresh_map_is_nearly_black(decoder):
    """Most of a map is black. Catches a start at 0.5, from which the first epochs only darken."""
    with torch.no_grad():
        maps = decoder(*features(2, 3, 4, 4))
    assert maps.mean() < 0.15
    assert maps.std() > 1e-3  # but it depends on the input


def test_every_parameter_gets_a_gradient(decoder):
    """Catches a branch that is built and not connected, and one behind a dead activation."""
    fresh = SaliencyDecoder(vision_width=VISION, text_width=TEXT, width=32)
    maps = fresh(*features(2, 3, 3, 5))
    # Weighted at random: plain sums let gradients of symmetric parts cancel.
    (maps * torch.rand_like(maps)).sum().backward()
    parameters = dict(fresh.named_parameters())
    assert parameters
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("tap", [0, 1, 2])
def test_a_patch_of_a_tap_changes_its_own_place_of_its_own_view(decoder, tap):
    """Catches views that leak into each other through the visual branch, a tap that is read
    transposed or joined at a wrong resolution, and a tap that is not read at all.
    """
    tokens, taps = features(2, 3, 9, 7)
    other = [tensor.clone() for tensor in taps]
    row, column = 10, 6
    other[tap][1, 2, row, column] *= -1
    changed = change(decoder, tokens, taps, tokens, other)
    elsewhere = torch.ones_like(changed)
    elsewhere[1, 2] = 0
    assert (changed * elsewhere).max() <= 1e-6
    assert changed[1, 2].max() > 1e-3
    y, x = centre(changed[1, 2])
    # A patch is 4 x 4 cells; the convolutions blur it over its neighbours.
    assert y == pytest.approx(4 * row + 1.5, abs=3)
    assert x == pytest.approx(4 * column + 1.5, abs=3)


def test_the_shallower_the_tap_the_finer_its_mark(decoder):
    """Deep blocks join at the patch grid, shallow ones at a quarter of a patch. Catches taps in
    reverse order, which every other test here would pass.
    """
    tokens, taps = features(1, 1, 9, 9)
    radii = []
    for tap in range(3):
        other = [tensor.clone() for tensor in taps]
        other[tap][0, 0, 9, 9] *= -1
        changed = change(decoder, tokens, taps, tokens, other)[0, 0]
        y, x = centre(changed)
        distance = torch.hypot(torch.arange(72)[:, None] - y, torch.arange(72)[None] - x)
        radii.append(float((changed * distance).sum() / changed.sum()))
    assert radii[0] > radii[1] > radii[2]


def test_a_token_changes_mostly_its_own_place_of_its_own_view(decoder):
    """Catches views and rows mixed up in the multimodal branch, where 3D convolutions couple
    neighbouring views on purpose.
    """
    tokens, taps = features(2, 4, 9, 7)
    other = tokens.clone()
    row, column = 5, 3
    other[0, 1, row, column] = -other[0, 1, row, column]
    changed = change(decoder, tokens, taps, other, taps)
    by_view = changed.sum((2, 3))
    assert by_view[1].max() <= 1e-5  # the other clip
    assert by_view[0].argmax() == 1
    assert by_view[0, 0] > 0
    y, x = centre(changed[0, 1])
    # A token is 8 x 8 cells.
    assert y == pytest.approx(8 * row + 3.5, abs=6)
    assert x == pytest.approx(8 * column + 3.5, abs=6)


def test_scale_of_a_tap_does_not_matter(decoder):
    """Blocks of a large tower differ by orders of magnitude. Catches a tap without its own
    normalisation.
    """
    tokens, taps = features(1, 3, 3, 3)
    scaled = [tap * scale for tap, scale in zip(taps, (1.0, 30.0, 1000.0), strict=True)]
    # Not exact: the norm's epsilon weighs less in a larger tap.
    assert change(decoder, tokens, taps, 50 * tokens, scaled).max() <= 1e-4


def test_computed_in_float32_also_under_mixed_precision(decoder):
    """Catches maps in steps of 1/256, from features or an autocast in bfloat16."""
    tokens, taps = features(1, 3, 3, 3)
    tokens, taps = tokens.bfloat16(), [tap.bfloat16() for tap in taps]
    with torch.no_grad():
        expected = decoder(tokens.float(), [tap.float() for tap in taps])
        with torch.autocast("cpu", torch.bfloat16):
            maps = decoder(tokens, taps)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, expected)


def test_three_taps_are_expected(decoder):
    """Catches a tap that is lost on the way and silently left out."""
    tokens, taps = features(1, 3, 2, 2)
    with pytest.raises(ValueError, match="shorter"):
        decoder(tokens, taps[:2])


@pytest.mark.parametrize(("branches", "deaf_to"), [("visual", "tokens"), ("multimodal", "taps")])
def test_an_ablated_branch_is_not_there(branches, deaf_to):
    """Table 4, rows 1 and 3. Catches a branch that is still heard, one that was left out by mistake
    with the other, and parameters that nothing trains.
    """
    torch.manual_seed(0)
    ablated = SaliencyDecoder(vision_width=VISION, text_width=TEXT, width=32, branches=branches)
    tokens, taps = features(1, 3, 2, 2)
    others, other_taps = features(1, 3, 2, 2, seed=1)
    assert change(ablated, tokens, taps, others, taps).max() > 0 or deaf_to == "tokens"
    assert change(ablated, tokens, taps, tokens, other_taps).max() > 0 or deaf_to == "taps"
    replaced = (others, taps) if deaf_to == "tokens" else (tokens, other_taps)
    assert change(ablated, tokens, taps, *replaced).max() == 0
    maps = ablated(tokens, taps)
    assert maps.shape == (1, 3, 16, 16)
    maps.sum().backward()
    without = [name for name, p in ablated.named_parameters() if p.grad is None]
    assert without == []
