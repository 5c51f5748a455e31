"""Decoding of image files to RGB, and the checks that make it safe to read what others annotated."""

from __future__ import annotations

import functools
import stat
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from detcore.errors import DataError

#: Pillow refuses larger files whatever we allow.
PILLOW_LIMIT = 178_956_970

Exif: TypeAlias = Literal["auto", "apply", "ignore"]
MaxPixels: TypeAlias = Annotated[int, Field(ge=1, le=PILLOW_LIMIT)]

#: What is decoded; Pillow knows more, of which some run other programs (EPS: Ghostscript) or are rarely looked after.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
#: Longest path of an image below its folder, in bytes; systems allow no longer ones.
_LONGEST_PATH = 4096

_ORIENTATION = 0x0112
#: How a stored picture becomes the upright one: quarter turns counter-clockwise, then a mirror in x.
_TURNS = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}


class ImageReader:
    """Reads the images of one folder as uint8 RGB.

    Args:
        root: Folder that file names are relative to.
        max_pixels: Largest height * width that is decoded; guards against files that unpack to gigabytes.
        exif: What to do with the orientation that a camera noted in the file. ``auto`` turns the picture
            such that it has the annotated size, and turns it upright where that does not decide.
    """

    def __init__(self, root: Path, max_pixels: int, exif: Exif) -> None:
        self.root, self.max_pixels, self.exif = root, max_pixels, exif

    def path(self, name: str) -> Path:
        """Where an image lies."""
        return self.root / name

    def size(self, name: str) -> tuple[int, int]:
        """(h, w) of an image as it is given out, from the head of its file; nothing is decoded.

        Args:
            name: Path relative to the root.

        Raises:
            DataError: The file is missing, or is no image.
        """
        path = self.path(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _open(path) as image:
                    width, height = image.size
                    orientation = 1 if self.exif == "ignore" else _orientation(image)
        except FileNotFoundError:
            raise DataError(f"{path}: the image does not exist") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as cause:
            raise DataError(f"{path}: not an image, or of an unknown format ({cause})") from cause
        turned = _TURNS.get(orientation, (0, 0))[0] % 2 == 1
        return (width, height) if turned else (height, width)

    def __call__(self, name: str, size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
        """One image, its channels side by side in memory (resizing is fastest that way).

        Args:
            name: Path relative to the root.
            size: Annotated (h, w), or None where the annotation has none.

        Raises:
            DataError: The file is missing, is no image, is damaged, too large, or not of the annotated size.
        """
        path = self.path(name)
        try:
            pixels, orientation = self._decode(path)
        except FileNotFoundError:
            raise DataError(f"{path}: the image does not exist") from None
        except UnidentifiedImageError:
            raise DataError(
                f"{path}: not an image, or of an unknown format; known are {', '.join(FORMATS)}"
            ) from None
        except DataError:
            raise
        except (
            Exception
        ) as cause:  # what a damaged file makes Pillow raise is not limited to a list of classes
            raise DataError(f"{path}: the image cannot be decoded ({cause})") from cause
        pixels = self._oriented(path, pixels, orientation, size)
        if size is not None and pixels.shape[:2] != size:
            (h, w), (found_h, found_w) = size, pixels.shape[:2]
            hint = "; the annotation has them swapped" if (w, h) == (found_h, found_w) else ""
            raise DataError(
                f"{path}: the image is {found_w} x {found_h} pixels (w x h) but its annotation says "
                f"{w} x {h}{hint}; correct the annotation, since its boxes refer to the annotated size"
            )
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)

    def _decode(self, path: Path) -> tuple[np.ndarray, int]:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # bombs: our own limit decides; of damaged camera notes: no matter
            with _open(path) as image:
                width, height = image.size
                if width * height > self.max_pixels:
                    raise DataError(
                        f"{path}: {width} x {height} pixels are more than max_pixels={self.max_pixels}; "
                        "raise max_pixels if the file is to be trusted"
                    )
                orientation = 1 if self.exif == "ignore" else _orientation(image)
                return np.array(_to_rgb(path, image)), orientation

    def _oriented(
        self, path: Path, pixels: np.ndarray, orientation: int, size: tuple[int, int] | None
    ) -> np.ndarray:
        turns, mirror = _TURNS.get(orientation, (0, 0))
        upright_size = pixels.shape[:2] if turns % 2 == 0 else pixels.shape[1::-1]
        as_stored_fits = size is not None and pixels.shape[:2] == size and upright_size != size
        if self.exif == "auto" and as_stored_fits:
            return pixels
        upright = np.rot90(pixels, turns)
        return upright[:, ::-1] if mirror else upright


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(path: Path) -> Image.Image:
    """An image whose head was read.

    Raises:
        OSError: It is missing, no regular file (a pipe would never end), or no image.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")
    return Image.open(path, formats=_formats())


def _orientation(image: Image.Image) -> int:
    """What the camera noted; upright where that is damaged or no number."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of damaged notes, which say nothing about the pixels
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    """8-bit RGB; an alpha channel is dropped, 16-bit grey is scaled to 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise DataError(
            f"{path}: floating-point pixels have no defined range; store the image with 8 or 16 bits"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")  # a transparent palette converts to RGB with a warning only
    return image.convert("RGB")


def check_inside(source: Path, name: str) -> str:
    """``name`` where it is a relative path that stays below its root.

    Args:
        source: The file that has the name, for the message.
        name: A path from an annotation.

    Raises:
        DataError: The name is empty, absolute, leads out of the folder, or is none that a file can have.
    """
    suspicious = not name or name[0] in "/\\" or ".." in name or ":" in name or "\0" in name or name[0] == "."
    if not name.isascii() or len(name) > _LONGEST_PATH:
        _check_encodable(source, name)
    if suspicious and _leads_out(name):
        raise DataError(
            f"{source}: the image path {name!r} leads out of the image folder; make it relative to it"
        )
    return name


def _check_encodable(source: Path, name: str) -> None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError as cause:
        raise DataError(
            f"{source}: the image path {name[:100]!r} is no text that a file can be named"
        ) from cause
    if length > _LONGEST_PATH:
        raise DataError(
            f"{source}: the image path {name[:50]!r}... has {length} bytes; more than {_LONGEST_PATH} name no file"
        )


def below(root: Path | None, path: Path) -> Path:
    """``path`` relative to ``root``; as it is where there is no root or it is absolute."""
    return path if root is None else root / path


def _leads_out(name: str) -> bool:
    here, on_windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = name.startswith(("/", "\\")) or bool(on_windows.drive)
    return not here.parts or absolute or ".." in (*here.parts, *on_windows.parts) or "\0" in name


def check_folder(path: Path, parameter: str) -> Path:
    """``path`` where it is a folder.

    Raises:
        DataError: It is not; names the parameter.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"{parameter}: the folder {path} {what}{_relative_hint(path)}")
    return path


def check_file(path: Path, parameter: str) -> Path:
    """``path`` where it is a file.

    Raises:
        DataError: It is not; names the parameter.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{parameter}: the file {path} {what}{_relative_hint(path)}")
    return path


def _relative_hint(path: Path) -> str:
    return "" if path.is_absolute() else f" (relative to {Path.cwd()})"
