"""The score head: geometry, precision, and what the released head gets wrong."""

import pytest
import torch
from torch import nn

from lmme3dhf.models.heads import HEADS, MLPHead
from lmme3dhf.models.heads.mlp import published_head


def small_head() -> MLPHead:
    torch.manual_seed(0)
    return MLPHead(hidden_size=24, widths=(16, 8))


def test_published_geometry():
    """The released head: 3584-1024-256-64-16-1, by hand 3,671,040 + 262,400 + 16,448 + 1,040 + 17 =
    3,950,945 parameters. Catches a missing layer or missing biases.
    """
    with torch.device("meta"):
        head = HEADS["mlp"](hidden_size=3584, widths=published_head(3584))
    linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
    sizes = [linears[0].in_features, *(linear.out_features for linear in linears)]
    assert sizes == [3584, 1024, 256, 64, 16, 1]
    assert sum(parameter.numel() for parameter in head.parameters()) == 3_950_945


def test_head_is_linears_with_relu_between():
    """Built again from torch's own blocks. Catches a missing or a misplaced activation."""
    head = small_head()
    first, second, third = head.layers
    same = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.Flatten(0))
    hidden = torch.randn(7, 24)
    torch.testing.assert_close(head(hidden)["score"], same(hidden))


def test_output_is_not_clipped():
    """Catches the released head's last ReLU (departure D2): with it a head whose output falls below
    zero gives 0 for every clip and no gradient ever again.
    """
    head = small_head()
    with torch.no_grad():
        head.layers[-1].bias.fill_(-3.0)
    score = head(0.1 * torch.randn(5, 24))["score"]
    assert (score < 0).all()
    score.sum().backward()
    assert head.layers[-1].bias.grad.item() == 5


def test_one_score_a_sample():
    """Catches (batch, 1), which broadcasts against (batch,) targets into a silent wrong loss."""
    assert small_head()(torch.randn(4, 24))["score"].shape == (4,)
    assert small_head()(torch.randn(1, 24))["score"].shape == (1,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_computed_in_float32_whatever_comes_in(dtype):
    """Catches a head that runs in the backbone's type, also under mixed precision: in bfloat16 a
    MOS moves in steps of 0.2 to 0.4.
    """
    head, hidden = small_head(), torch.randn(6, 24).to(dtype)
    expected = head(hidden.float())["score"]
    with torch.autocast("cpu", torch.bfloat16):
        score = head(hidden)["score"]
    assert score.dtype == torch.float32
    assert torch.equal(score, expected)


def test_fresh_head_starts_in_the_middle_and_alive():
    """He's rule: deviation sqrt(2 / inputs). Catches a start at one end of the scale, vanishing
    activations, and a layer that gets no gradient.
    """
    torch.manual_seed(0)
    head = MLPHead(hidden_size=512, widths=(256, 64))
    for layer in head.layers[:-1]:
        assert layer.weight.std().item() == pytest.approx((2 / layer.in_features) ** 0.5, rel=0.05)
        assert not layer.bias.any()
    assert head.layers[-1].bias.item() == 0.5
    head(torch.randn(64, 512))["score"].sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name
