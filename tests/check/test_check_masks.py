from pathlib import Path

import pytest
from PIL import Image

from support.check import changed, found, rows, write


def masked(folder: Path, **columns: int) -> Path:
    """Six rows: a good mask, none, an empty, a small, a broken and a missing one."""
    frame = changed(rows(), "mask_path", {number: f"masks/{number}.png" for number in (0, 2, 3, 4, 5)})
    write(folder, frame.assign(**columns), images=True)
    (folder / "masks").mkdir()
    good = Image.new("L", (100, 120))
    good.paste(255, (10, 10, 40, 40))
    good.save(folder / "masks/0.png")
    Image.new("L", (100, 120)).save(folder / "masks/2.png")
    good.resize((50, 60)).save(folder / "masks/3.png")
    (folder / "masks/4.png").write_bytes((folder / "masks/0.png").read_bytes()[:60])
    return folder


def test_each_bad_mask_is_named(tmp_path: Path) -> None:
    findings = found(masked(tmp_path), "mask", images=True)
    assert [(finding.rows, finding.severity, Path(finding.where).name) for finding in findings] == [
        ((2,), "warning", "2.png"),
        ((3,), "error", "3.png"),
        ((4,), "error", "4.png"),
        ((5,), "error", "5.png"),
    ]
    assert findings[1].message == "the mask is 50×60, its image 100×120"
    assert "no such file" in findings[3].message


@pytest.mark.parametrize(("label", "expected"), [(0, False), (1, True), (-1, True)])
def test_an_empty_mask_is_right_where_the_labels_say_nothing(tmp_path: Path, label: int, expected: bool) -> None:
    findings = found(masked(tmp_path, label_Pneumothorax=label), "mask", images=True)
    assert any(finding.rows == (2,) for finding in findings) == expected
