"""What happens to one image: decode at full size, resize once, write, and note what was seen."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp, inside, sha256, write_bytes
from cmcgns.data.images.dicom import KEPT_TAGS
from cmcgns.data.images.masks import Mask, mask_from_source, resize_mask, save_mask
from cmcgns.data.images.place import have_one_shape, resize
from cmcgns.data.images.read import decode_image, encode_image

_STEM = 80  # bytes of an image's name that its file keeps: names have 255 at most
_READING = "v2"  # to be raised whenever the same file gives other pixels


@dataclass(frozen=True)
class ImageTask:
    """One image to prepare; small, because it travels to worker processes.

    Attributes:
        source: file relative to the root.
        mask: how the mask is made (JSON of `SourceTable`), or empty.
    """

    source: str
    mask: str = ""


@dataclass(frozen=True)
class ImageSettings:
    """What all images of a call share.

    Attributes:
        root: the dataset's folder.
        out: the prepared folder.
        size: long side of the stored image; smaller images stay as they are.
        lossless: PNG (8 or 16 bit, as the source) instead of JPEG; brightness by the rule of
            `cmcgns.data.images.brightness` in either.
    """

    root: str
    out: str
    size: int = 512
    lossless: bool = False

    @property
    def key(self) -> str:
        """Results of another key are not taken over."""
        return f"{self.size}-{'png' if self.lossless else 'jpeg95'}-{_READING}"


@dataclass(frozen=True)
class ImageResult:
    """What became of one image.

    Attributes:
        source: as in the task.
        stamp: size and time of the source file and what was asked for; a changed file is prepared anew.
        error: why the image is left out; empty if it was prepared.
        image_path, mask_path: relative to the prepared folder.
        tags: what the file itself says (DICOM), and the names of the tags that hold a person's data, never these.
    """

    source: str
    stamp: str
    error: str = ""
    image_path: str = ""
    mask_path: str = ""
    width: int = 0
    height: int = 0
    original_width: int = 0
    original_height: int = 0
    sha256: str = ""
    tags: dict[str, str] = field(default_factory=dict)


def stamp_of(task: ImageTask, settings: ImageSettings) -> str:
    """Changes whenever the source file, its mask or the settings change; empty for a missing file.

    Labels, boxes, reports and splits are read from their tables at every call, and need none.
    """
    root = Path(settings.root)
    stamp = file_stamp(root / task.source)
    if not stamp:
        return ""
    mask = ""
    if task.mask:
        own = file_stamp(root / file) if (file := json.loads(task.mask).get("file")) else ()
        mask = hashlib.blake2b(f"{task.mask}{own or ''}".encode(), digest_size=6).hexdigest()
    return f"{settings.key}-{stamp[0]}-{stamp[1]}-{mask}"


def prepare_image(task: ImageTask, settings: ImageSettings) -> ImageResult:
    """Prepare one image; whatever is wrong with it becomes the result's `error`.

    Raises:
        UserError: the prepared folder cannot be written to.
    """
    stamp = stamp_of(task, settings)
    try:
        image, mask, result = _decode(task, settings, stamp)
    except UserError as error:
        return ImageResult(task.source, stamp, error=str(error))
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        # A library's own complaint about one file must not end a run over 377,000.
        return ImageResult(task.source, stamp, error=f"{task.source}: {type(error).__name__}: {error}")
    out = Path(settings.out)
    write_bytes(out / result.image_path, image, durable=False)
    if mask is not None:
        save_mask(mask, out / result.mask_path)
    return result


def target_name(source: str, suffix: str) -> str:
    """`ab/name-0123456789ab.jpg`: unique for the path, in one of 256 folders."""
    digest = hashlib.blake2b(source.encode(), digest_size=6).hexdigest()
    stem = Path(source).stem.encode()[:_STEM].decode(errors="ignore")
    return f"{digest[:2]}/{stem}-{digest}{suffix}"


def _decode(task: ImageTask, settings: ImageSettings, stamp: str) -> tuple[bytes, Mask | None, ImageResult]:
    """What one image becomes before it is written: the file's content, the mask, the result."""
    root = Path(settings.root)
    path = inside(root, root / task.source)
    decoded = decode_image(path, at_least=settings.size, bits=16 if settings.lossless else 8)
    pixels = resize(decoded.pixels, settings.size)
    height, width = pixels.shape
    mask = None
    if task.mask:
        mask = mask_from_source(json.loads(task.mask), root)
        whole = decoded.height, decoded.width
        if not have_one_shape(mask.shape, whole, min(max(mask.shape), max(whole))):
            raise UserError(
                f"{task.source}: the mask is {mask.shape[1]}×{mask.shape[0]}, which is no scaled copy of the image's "
                f"{decoded.width}×{decoded.height}"
            )
        mask = resize_mask(mask, (height, width))
    result = ImageResult(
        task.source, stamp, "", "images/" + target_name(task.source, ".png" if settings.lossless else ".jpg"),
        "masks/" + target_name(task.source, ".png") if task.mask else "", width, height,
        decoded.width, decoded.height, sha256(path),
        {name: decoded.tags[name] for name in (*KEPT_TAGS, "identifying") if decoded.tags.get(name)},
    )  # fmt: skip
    return encode_image(pixels, settings.lossless), mask, result
