"""The work on images: what is done already, and where the rest is done (here, in a pool, or on a Ray cluster)."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cmcgns.common.cluster import on_ray
from cmcgns.common.errors import UserError
from cmcgns.common.files import explained
from cmcgns.common.processes import Stopped, worker_pool
from cmcgns.prepare.image import ImageResult, ImageSettings, ImageTask, prepare_image, stamp_of

logger = logging.getLogger(__name__)

STATE = "prepare-state.jsonl"  # one line for each image
Engine = Literal["pool", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
_CHUNK = 16


def prepare_images(
    tasks: list[ImageTask], settings: ImageSettings, engine: Engine, workers: int, console: Console
) -> dict[str, ImageResult]:
    """Results of all images by source file; only what is missing is done."""
    out = Path(settings.out)
    results = read_results(out)
    missing = list(still_missing(tasks, results, settings))
    if len(missing) < len(tasks):
        console.print(f"{len(tasks) - len(missing):,} images are prepared already")
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    work = partial(prepare_image, settings=settings)
    done = 0
    try:
        with Progress(*columns, console=console, disable=not missing) as progress:
            bar = progress.add_task("images", total=len(missing))
            for result in append_results(out, run_tasks(work, missing, engine, workers)):
                results[result.source] = result
                done += 1
                progress.advance(bar)
    except (KeyboardInterrupt, Stopped, UserError):
        console.print(f"stopped: {done:,} of {len(missing):,} images are done; the same command goes on from there")
        raise
    return results


def read_results(out: Path) -> dict[str, ImageResult]:
    """The last result of every source file; torn lines of an interrupted call are passed over."""
    file = out / STATE
    results: dict[str, ImageResult] = {}
    if not file.is_file():
        return results
    torn = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in filter(str.strip, lines):
            try:
                result = ImageResult(**json.loads(line))
            except (ValueError, TypeError):  # torn, or of another version
                torn += 1
            else:
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
    return (task for task in tasks if not _is_done(task, results.get(task.source), settings))


def _is_done(task: ImageTask, result: ImageResult | None, settings: ImageSettings) -> bool:
    if result is None or result.error or result.stamp != stamp_of(task, settings):
        return False
    out = Path(settings.out)
    return all(_is_whole(out / path) for path in (result.image_path, result.mask_path) if path)


def append_results(out: Path, results: Iterable[ImageResult]) -> Iterator[ImageResult]:
    """Pass results on, each written to the state first."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / STATE
    with explained(file), file.open("a", encoding="utf-8") as lines:
        lines.write("\n" if _is_torn(file) else "")
        for result in results:
            lines.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
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


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], engine: Engine = "pool", workers: int = 1
) -> Iterator[Result]:
    """Results of all tasks, in the order in which they come.

    Args:
        function: picklable.
        tasks: picklable.
        engine: `pool` (one process: no pool at all) or `ray`.
        workers: processes of the pool; Ray uses what the cluster has.

    Raises:
        UserError: Ray is asked for and not installed.
    """
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    run = partial(_run_chunk, function)
    if engine == "ray":
        parts = on_ray(run, chunks)
    elif workers == 1 or len(chunks) <= 1:
        parts = map(run, chunks)
    else:
        parts = _in_pool(run, chunks, workers)
    for part in parts:
        yield from part


def _run_chunk(function: Callable[[Any], Any], chunk: Sequence[Any]) -> list[Any]:
    return [function(task) for task in chunk]


def _in_pool(run: Callable[[Any], list[Any]], chunks: Sequence[Any], workers: int) -> Iterator[list[Any]]:
    # A bounded number of chunks is under way, so that memory does not grow with the number of rows.
    waiting = iter(chunks)
    with worker_pool(workers) as pool:
        running: set[Future[list[Any]]] = {pool.submit(run, chunk) for chunk in islice(waiting, 4 * workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(run, chunk) for chunk in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
