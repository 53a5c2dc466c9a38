"""What a download may leave where a file was meant to be."""

_LEFT = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"<!doctype html": "a web page, probably of a log-in or an error; download the file again",
    b"<html": "a web page, probably of a log-in or an error; download the file again",
}


def not_the_file(head: bytes) -> str:
    """What stands there instead of the file, by how the content begins; empty: it may be the file."""
    begins = head[:64].lstrip().lower()
    return next((kind for start, kind in _LEFT.items() if begins.startswith(start)), "")
