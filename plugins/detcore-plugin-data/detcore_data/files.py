"""Datasets with one annotation file per image: which files belong together."""

from __future__ import annotations

from pathlib import Path

from detcore.errors import DataError
from detcore_data.images import check_file, check_folder, check_inside

#: File name endings of images, in the order of preference where an image exists twice.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def pair_files(annotations: Path, images: Path, suffix: str, split: Path | None) -> list[tuple[Path, str]]:
    """Annotation files with the names of their images: those with the same name but for the ending.

    Args:
        annotations: Folder of the annotation files.
        images: Folder of the images.
        suffix: Ending of annotation files, with the dot.
        split: A file that lists names one per line, with or without ending (further columns are ignored);
            every annotation file in the order of the names where None.

    Returns:
        Per image its annotation file and the image's name in its folder.

    Raises:
        DataError: A folder or the split file is missing, the split is empty or names something twice, or an
            annotation file or an image is missing; names it.
    """
    check_folder(annotations, "annotations")
    by_stem = _images_by_stem(check_folder(images, "images"))
    existing = {path.stem: path for path in sorted(annotations.glob(f"*{suffix}"))}
    stems = list(existing) if split is None else _read_split(split)
    if not stems:
        raise DataError(f"annotations: there is no {suffix} file in {annotations}")
    pairs = []
    for stem in stems:
        asked = f"{split} lists {stem!r}, but " if split else ""
        if stem not in existing:
            raise DataError(f"{asked}{annotations / (stem + suffix)} does not exist")
        if stem not in by_stem:
            raise DataError(f"{asked}{images} has no image for {existing[stem].name}")
        pairs.append((existing[stem], by_stem[stem]))
    return pairs


def _images_by_stem(images: Path) -> dict[str, str]:
    found = [path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    found.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path.name for path in found}


def _read_split(split: Path) -> list[str]:
    try:
        lines = check_file(split, "split").read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as cause:
        raise DataError(f"{split}: not a text file ({cause})") from cause
    names = [check_inside(split, line.split()[0]) for line in lines if line.strip()]
    stems = [
        Path(name).stem if Path(name).suffix.lower() in (*IMAGE_SUFFIXES, ".xml", ".txt") else name
        for name in names
    ]
    if not stems:
        raise DataError(f"{split}: the list is empty")
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise DataError(f"{split}: {twice!r} is listed twice")
    return stems
