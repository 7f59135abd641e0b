"""Strips: three views of a face side by side in one still picture, as Gen3DHF's folder image/ holds
them and annotators marked them (paper, Section 3.2 and Fig. 4).
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from lmme3dhf.data.container import TRANSPARENT, VideoError, check_sides, on_black
from lmme3dhf.vocabulary import VIEWS

# What decodes them; clips have another decoder, see `data.container`. The number grows with every
# change of the pixels: 2 composites on black.
DECODER = "pillow2"
# A figure cut by hand has a few columns more or less than three squares.
_TOLERANCE = 0.02
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
# All that holds three or more colours, or grey, in 8 bits.
_MODES = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "CMYK", "YCbCr")
# What Pillow raises for damaged pictures; SyntaxError for chunks of a PNG.
_ERRORS = (OSError, SyntaxError, ValueError, IndexError, EOFError)


def views_of_strip(strip_HW3: np.ndarray, name: str) -> np.ndarray:
    """Cuts a strip into its views.

    Args:
        strip_HW3: uint8, three times as wide as high (two per cent more or less); of a width that
            is no multiple of three the last one or two columns are left out.
        name: Of the strip, for messages.

    Returns:
        uint8 (3, H, W // 3, 3), from left to right.

    Raises:
        VideoError: still_image for other proportions; too_small or too_large.
    """
    height, width = strip_HW3.shape[:2]
    _check_proportions(name, width, height)
    side = width // len(VIEWS)
    check_sides(name, side, height)
    return np.stack([strip_HW3[:, side * i : side * (i + 1)] for i in range(len(VIEWS))])


def read_views(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads the views of a strip's file, as `views_of_strip` gives them, and the notes on how (see
    `data.video.Clip`).

    Raises:
        VideoError: As `views_of_strip` and `read_image`.
    """
    strip, notes = read_image(path, strip=True)
    return views_of_strip(strip, str(path)), notes


def read_image(path: Path, *, strip: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a still image, uint8 (H, W, 3), turned as its EXIF says, and the notes on how.

    Args:
        path: The file.
        strip: Whether it has to have the proportions of a strip; the header says so before
            anything is decoded.

    Raises:
        VideoError: still_image for other kinds of images, unsupported_codec for more than 8 bits a
            colour, too_small, too_large, and decode_error for a damaged one.
    """
    try:
        with warnings.catch_warnings():
            # Of damage that does no harm.
            warnings.simplefilter("ignore")
            return _decoded(path, strip)
    except Image.UnidentifiedImageError as error:
        raise VideoError(
            "still_image",
            f"{path} is a still picture, none of {', '.join(_FORMATS)}; expected a clip, or a "
            f"strip of {len(VIEWS)} views as PNG",
        ) from error
    except Image.DecompressionBombError as error:
        raise VideoError(
            "too_large", f"{path} is a still picture of more pixels than any strip; scale it"
        ) from error
    except _ERRORS as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise VideoError("decode_error", f"{path} is damaged ({cause}); replace it") from error


def image_rgb(image: Image.Image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """An image's colours, uint8 (H, W, 3), over black where it is transparent, and the notes that
    say so.

    Args:
        image: Of any mode with 8 bits a colour.
        name: For the message.

    Raises:
        VideoError: unsupported_codec for another mode.
    """
    if image.mode not in _MODES:
        raise VideoError(
            "unsupported_codec",
            f"{name} holds {image.mode} values; expected 8 bits a colour, convert it to an RGB PNG",
        )
    colours = np.asarray(image.convert("RGB"))
    if not image.has_transparency_data:
        return colours, ()
    rgba = np.asarray(image.convert("RGBA"))
    if rgba[..., 3].min() == 255:
        return colours, ()
    return on_black(rgba[..., :3], rgba[..., 3]), (TRANSPARENT,)


def _decoded(path: Path, strip: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `image_rgb`; the header is looked at before anything is decoded."""
    with Image.open(path, formats=_FORMATS) as picture:
        exif = Image.Exif()
        exif.load(picture.info.get("exif", b""))
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = picture.size[::-1] if turned else picture.size
        if strip:
            _check_proportions(str(path), width, height)
        check_sides(str(path), width // len(VIEWS) if strip else width, height)
        return image_rgb(ImageOps.exif_transpose(picture), str(path))


def _check_proportions(name: str, width: int, height: int) -> None:
    if abs(width - len(VIEWS) * height) > _TOLERANCE * len(VIEWS) * height:
        raise VideoError(
            "still_image",
            f"{name} is a still picture of {width}x{height}; expected a clip, or a strip of "
            f"{len(VIEWS)} views that is {len(VIEWS)} times as wide as high",
        )
