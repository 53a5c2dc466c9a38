"""What is done already: one line for each image, so that a second call does only what is missing."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from cmcgns.prepare.image import ImageResult, ImageSettings, ImageTask, stamp_of

logger = logging.getLogger(__name__)

STATE = "prepare-state.jsonl"


def read_results(out: Path) -> dict[str, ImageResult]:
    """The last result of every source file; torn lines of an interrupted call are passed over."""
    file = out / STATE
    results: dict[str, ImageResult] = {}
    if not file.is_file():
        return results
    torn = 0
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                result = ImageResult.from_json(line)
            except (ValueError, TypeError):
                torn += 1
                continue
            results[result.source] = result
    if torn:
        logger.info("%s: %d torn lines of an interrupted call are ignored", file, torn)
    return results


def still_missing(
    tasks: Iterable[ImageTask], results: dict[str, ImageResult], settings: ImageSettings
) -> Iterator[ImageTask]:
    """Tasks without a result, with one of another file or setting, or whose written file has gone.

    Images that failed are tried again: the file may have been mended.
    """
    out = Path(settings.out)
    for task in tasks:
        result = results.get(task.source)
        written = result is not None and not result.error and _is_whole(out / result.image_path)
        if result is None or not written or result.stamp != stamp_of(task, settings):
            yield task


def append_results(out: Path, results: Iterable[ImageResult]) -> Iterator[ImageResult]:
    """Pass results on, each written to the state first."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / STATE
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" if _is_torn(file) else "")
        for result in results:
            lines.write(result.to_json() + "\n")
            lines.flush()
            yield result


def _is_whole(image: Path) -> bool:
    """Written files are whole, or empty after a power failure."""
    return image.is_file() and image.stat().st_size > 0


def _is_torn(file: Path) -> bool:
    """Whether the last line has no end: the next one must not be glued to it."""
    with file.open("rb") as content:
        if content.seek(0, 2) == 0:
            return False
        content.seek(-1, 2)
        return content.read(1) != b"\n"
