"""Identifiers in an image file's own tags: DICOM patient tags, EXIF, PNG text and JPEG comments."""

from pathlib import Path

from PIL import Image

from cmcgns.check.identifiers import identifier_kinds
from cmcgns.data.images.dicom import IDENTIFYING_TAGS

# EXIF: ImageDescription, Artist, XPTitle, XPComment, XPAuthor, UserComment. Dates of the camera are no one's.
_EXIF_TAGS = (0x010E, 0x013B, 0x9C9B, 0x9C9C, 0x9C9D, 0x9286)
_COMMENTS = ("comment", "Comment", "Description", "Title", "Author", "Subject", "PatientName", "PatientID")


def personal_metadata(image: Image.Image) -> set[str]:
    """Kinds of identifiers that the tags and comments of a PNG or JPEG seem to hold; never the values."""
    texts = [_as_text(image.info[name]) for name in _COMMENTS if name in image.info]
    exif = image.getexif()
    texts += [_as_text(exif[tag]) for tag in _EXIF_TAGS if tag in exif]
    return identifier_kinds(texts)


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace").replace("\0", "") if isinstance(value, bytes) else str(value)


def is_dicom(file: Path) -> bool:
    """Whether a file says that it is DICOM."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def dicom_patient_tags(file: Path) -> list[str]:
    """Names of the DICOM tags that identify a person and are filled; an unreadable file has none."""
    import pydicom

    try:
        data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(IDENTIFYING_TAGS))
        return [tag for tag in IDENTIFYING_TAGS if str(data.get(tag, "") or "").strip(" ^_X")]
    except Exception:  # pydicom raises whatever a broken file leads it to; that it is broken is another rule's to say
        return []
