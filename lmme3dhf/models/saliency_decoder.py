"""Stage 3's decoder: a U-Net over visual taps and multimodal features (Section 4.1, saliency
decoder; Figure 7).

Departure D4: the released decoder has no activation between its layers (it is an affine map before
the tanh), squashes the three-view strip into a square, and reads another backbone. Ours has
activations, sees each view undistorted, and reads the same Qwen2.5-VL that gives the scores.
"""

import torch
from torch import nn


class Upsample(nn.Module):
    """Convolution to four times the channels, GELU, PixelShuffle: twice the resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)
        self.activation = nn.GELU()
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels_in, h, w) -> (n, channels_out, 2h, 2w)."""
        return self.shuffle(self.activation(self.convolution(x)))


class Fuse(nn.Module):
    """Joins two branches of one resolution: concatenation, convolution, GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.activation = nn.GELU()

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Two (n, channels, h, w) -> one."""
        return self.activation(self.convolution(torch.cat([x, skip], 1)))


class SaliencyDecoder(nn.Module):
    """Maps for the views of one clip.

    Multimodal branch: hidden states of the language model at the visual tokens -> MLP -> two 3D
    convolutions across the views. Visual branch: three blocks of the vision tower, the shallower
    the finer the resolution at which they join.

    Args:
        vision_width: Channels of the vision tower.
        text_width: Channels of the language model.
        width: Channels of the decoder at the patch grid.
        branches: "both"; "visual" leaves the multimodal branch out, "multimodal" the visual one
            (Table 4, rows 1 and 3).
    """

    def __init__(
        self, *, vision_width: int, text_width: int, width: int, branches: str = "both"
    ) -> None:
        super().__init__()
        coarse, middle, fine = width, max(width // 2, 8), max(width // 4, 8)
        self.multimodal, self.visual = branches != "visual", branches != "multimodal"
        if self.multimodal:
            self.token_norm = nn.LayerNorm(text_width)
            self.mlp = nn.Sequential(
                nn.Linear(text_width, 2 * coarse), nn.GELU(), nn.Linear(2 * coarse, coarse)
            )
            self.across_views = nn.Sequential(
                nn.Conv3d(coarse, coarse, 3, padding=1),
                nn.GELU(),
                nn.Conv3d(coarse, coarse, 3, padding=1),
                nn.GELU(),
            )
        if self.visual:
            # Block outputs of a large tower differ in scale by orders of magnitude; each tap is
            # normalised on its own.
            self.tap_norms = nn.ModuleList(nn.LayerNorm(vision_width) for _ in range(3))
            self.deep = nn.Sequential(nn.Conv2d(vision_width, coarse, 1), nn.GELU())
            self.mid = nn.Sequential(
                nn.Conv2d(vision_width, coarse, 1), nn.GELU(), Upsample(coarse, middle)
            )
            self.shallow = nn.Sequential(
                nn.Conv2d(vision_width, coarse, 1),
                nn.GELU(),
                Upsample(coarse, middle),
                Upsample(middle, fine),
            )
        if self.multimodal:
            self.to_patches = Upsample(coarse, coarse)
        if self.multimodal and self.visual:
            self.fuse_deep = Fuse(coarse)
        self.to_half_patches = Upsample(coarse, middle)
        if self.visual:
            self.fuse_mid = Fuse(middle)
        self.to_quarter_patches = Upsample(middle, fine)
        if self.visual:
            self.fuse_shallow = Fuse(fine)
        self.out = nn.Sequential(
            nn.Conv2d(fine, fine, 3, padding=1), nn.GELU(), nn.Conv2d(fine, 1, 1)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; the map starts nearly black, as most of a map is."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.out[-1].bias, -3.0)

    def forward(self, tokens: torch.Tensor, taps: list[torch.Tensor]) -> torch.Tensor:
        """Predicts the maps.

        Args:
            tokens: (batch, views, h, w, text_width), the language model's hidden states at the
                visual tokens, raster order.
            taps: Three tensors (batch, views, 2h, 2w, vision_width), deepest block first, raster
                order.

        Returns:
            (batch, views, 8h, 8w) in 0..1, as predicted: nothing is stretched, so a clean face can
            have an empty map. One cell is a quarter of a patch (3.5 px).
        """
        batch, views = tokens.shape[:2]
        with torch.autocast(tokens.device.type, enabled=False):
            if self.multimodal:
                x = self.mlp(self.token_norm(tokens.float())).permute(0, 4, 1, 2, 3)
                x = self.across_views(x).permute(0, 2, 1, 3, 4).flatten(0, 1)
                x = self.to_patches(x)
            if self.visual:
                deep, mid, shallow = (
                    norm(tap.float()).flatten(0, 1).permute(0, 3, 1, 2)
                    for norm, tap in zip(self.tap_norms, taps, strict=True)
                )
                deep = self.deep(deep)
                x = self.fuse_deep(x, deep) if self.multimodal else deep
            x = self.to_half_patches(x)
            if self.visual:
                x = self.fuse_mid(x, self.mid(mid))
            x = self.to_quarter_patches(x)
            if self.visual:
                x = self.fuse_shallow(x, self.shallow(shallow))
            return torch.sigmoid(self.out(x)).view(batch, views, *x.shape[-2:])
