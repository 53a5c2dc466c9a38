import os
import signal
from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.images.dicom import decode_apart

PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)
PATH = Path("picture.dcm")


def decode(function):
    return decode_apart(function, PIXELS.shape, PIXELS.dtype, PATH)


def test_the_array_of_the_other_process_arrives() -> None:
    np.testing.assert_array_equal(decode(lambda: PIXELS.T.copy().T), PIXELS)
    large = np.arange(3_000_000, dtype=np.int16).reshape(1000, 3000)
    np.testing.assert_array_equal(decode_apart(large.copy, large.shape, large.dtype, PATH), large)


def test_a_crash_becomes_a_message(capfd) -> None:
    with pytest.raises(UserError, match=r"picture\.dcm: damaged pixels \(the decoder crashed"):
        decode(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_becomes_a_message(error: type[BaseException]) -> None:
    def fail() -> np.ndarray:
        raise error("no end in sight")

    with pytest.raises(UserError, match="no end in sight"):
        decode(fail)


def test_complaints_of_damage_count_and_others_do_not(capfd) -> None:
    def complain(text: bytes) -> np.ndarray:
        os.write(2, text)
        return PIXELS

    with pytest.raises(UserError, match="premature end of data"):
        decode(lambda: complain(b"Corrupt JPEG data: premature end of data segment\n"))
    np.testing.assert_array_equal(decode(lambda: complain(b"1 extraneous byte before marker 0xd9\n")), PIXELS)
    assert capfd.readouterr() == ("", "")


def test_more_complaints_than_a_pipe_holds_do_not_block() -> None:
    def complain() -> np.ndarray:
        os.write(2, b"chatter\n" * 100_000)
        return PIXELS

    np.testing.assert_array_equal(decode(complain), PIXELS)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="damaged pixels"):
        decode(lambda: PIXELS[:2])
