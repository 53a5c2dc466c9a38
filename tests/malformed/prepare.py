"""`cmcgns prepare` with every source, and tables of one's own."""

from malformed.call import Call
from malformed.faults import EPS, PYTHON, cut, dicom, folder, parquet, picture, table

SOURCES = ("mimic-cxr", "openi", "chexpert", "rsna", "covidx", "siim", "object-cxr", "nih", "vindr")
TO = "--out out --workers 1 --size 32"
TABLE = f"prepare table {TO} --root mine.csv"
IN = f"prepare table {TO} --root pairs"
SMALL = "tree-chexpert/CheXpert-v1.0-small"


def tree(name: str, *must: str, status: int = 2, **files: object) -> Call:
    """A public dataset with something wrong; names of files below it follow, `/` as they are."""
    return Call(f"prepare {name} --root tree-{name} {TO}", must, files["files"], status)  # type: ignore[arg-type]


ROOTS = [
    *(Call(f"prepare {name} --root nowhere {TO}", ["--root nowhere", "no such folder"]) for name in SOURCES[:3]),
    *(
        Call(f"prepare {name} --root empty {TO}", ["empty", "is there | expected | there is no"], {"empty": folder})
        for name in SOURCES
    ),
    Call(f"prepare rsna --root pairs/0.png {TO}", ["--root pairs/0.png", "file", "folder"]),
    Call(f"prepare nih --root pairs {TO}", ["pairs", "Data_Entry"]),
    Call(f"prepare table --root nowhere {TO}", ["--root nowhere", "no such"]),
    Call(f"prepare table --root empty {TO}", ["empty", "csv"], {"empty": folder}),
    Call(f"prepare table --root ftp://host/x {TO}", ["--root ftp:", "no such folder | URL"]),
    Call(f"prepare table --root '' {TO}", ["--root | --out"]),
    Call(f"prepare table --root {'n' * 300} {TO}", ["too long | no such"]),
    Call(f"prepare table --root pairs/0.png/x {TO}", ["pairs/0.png/x", "no such"]),
    Call(f"prepare table --root pairs/0.png {TO}", ["pairs/0.png", "picture", "table"]),
]

OPTIONS = [
    Call("prepare", ["NAME"]),
    Call("prepare table", ["--root"]),
    Call("prepare table --root pairs", ["--out"]),
    Call(f"prepare mimic --root pairs {TO}", ["mimic", "mimic-cxr", "openi"]),
    Call(f"prepare padchest --root pairs {TO}", ["padchest", "known: | there are", "table"]),
    Call(f"prepare '' --root pairs {TO}", ["dataset", "known: | there are", "table"]),
    Call(f"prepare MIMIC-CXR --root pairs {TO}", ["MIMIC-CXR", "mimic-cxr"]),
    Call("prepare table --root pairs --out out --size 0", ["--size 0", "32"]),
    Call("prepare table --root pairs --out out --size -5", ["--size -5", "32"]),
    Call("prepare table --root pairs --out out --size big", ["--size", "integer"]),
    Call("prepare table --root pairs --out out --workers 0", ["--workers", "1"]),
    Call("prepare table --root pairs --out out --workers 1000000", ["--workers", "1024"]),
    Call(f"prepare table --root pairs {TO} --engine spark", ["--engine", "pool", "ray"]),
    Call("prepare table --root pairs --out out --size 32 --engine ray", ["ray", "pip install"]),
    Call(f"prepare table --root pairs {TO} --engine ray", ["--workers 1", "--engine ray"]),
    Call(f"prepare table --root pairs {TO} --split v2", ["--split", "legacy"]),
    Call(f"prepare table --root pairs {TO} --seed -1", ["--seed", "0"]),
    Call(f"prepare table --root pairs {TO} --shards -1", ["--shards -1", "1000"]),
    Call(f"prepare table --root pairs {TO} --rules klingon", ["klingon", "english", ".yaml"]),
    Call(f"prepare table --root pairs {TO} --rules germann", ["germann", "Did you mean german?"]),
    Call(f"prepare table --root pairs {TO} --rules r.yaml", ["r.yaml", "no rule file | no such"]),
    Call(f"prepare table --root pairs {TO} --rules r.yaml", ["r.yaml", "YAML"], {"r.yaml": "a: ["}),
    Call(f"prepare table --root pairs {TO} --rules r.yaml", ["r.yaml", "mapping"], {"r.yaml": "[a]"}),
    Call(f"prepare table --root pairs {TO} --rules r.yaml", ["r.yaml", "headings | missing | required"], {"r.yaml": ""}),
    Call(f"prepare table --root pairs {TO} --rules r.yaml", ["r.yaml", "python | YAML"], {"r.yaml": PYTHON}),
    Call(f"prepare table --root pairs {TO} --rules r.yaml", ["r.yaml", "UTF-8"], {"r.yaml": b"\xff\xfe"}),
    Call(f"prepare table --root pairs {TO} --column image_path", ["--column image_path", "OURS=THEIRS"]),
    Call(f"prepare table --root pairs {TO} --column =Path", ["--column =Path", "OURS=THEIRS"]),
    Call(f"prepare table --root pairs {TO} --column ''", ["--column", "OURS=THEIRS"]),
    Call(f"prepare table --root pairs {TO} --column image_pth=Path", ["image_pth", "image_path"]),
    Call(f"prepare table --root pairs {TO} --column image_path=Path", ["pairs.csv", "Path", "image_path"]),
    Call(f"prepare table --root pairs {TO} --column sex=report --column view=report --column sex=patient_id", [
        "--column", "sex", "twice"]),
    Call(f"prepare nih --root tree-nih {TO} --column image_path=Path", ["--column", "prepare table"]),
    Call(f"prepare nih --root tree-nih {TO} --dataset mine", ["--dataset", "prepare table"]),
    Call(f"prepare table --root pairs {TO} --dataset 'My Data'", ["--dataset My Data", "lower-case"]),
    Call(f"prepare table --root pairs {TO} --split legacy", ["--split", "table"]),
    Call("prepare table --root pairs --out pairs", ["--out pairs", "another"], {"pairs/x": ""}),
    Call("prepare table --root pairs --out pairs/out", ["--out pairs/out", "another"], {"pairs/x": ""}),
    Call("prepare table --root pairs --out tiny.yaml", ["--out tiny.yaml", "file", "folder"]),
    Call("prepare table --root pairs --out tiny.yaml/x", ["--out tiny.yaml/x", "folder"]),
    Call("prepare table --root pairs --out /proc/none", ["--out /proc/none", "folder | made"]),
    Call(f"prepare table --root pairs --out {'n' * 300}", ["too long"]),
    Call("prepare table --root pairs --out loop/x", ["--out loop/x"], {"loop": lambda path: path.symlink_to("loop")}),
    Call(f"prepare table --root pairs {TO}", ["--out out", "nih", "another"], {
        "out/report.json": '{"source": {"name": "nih"}}'}),
    Call(f"prepare table --root pairs {TO}", ["out/report.json", "damaged | JSON"], {"out/report.json": "{"}),
    Call(f"prepare table --root pairs {TO}", ["out/report.json", "damaged | JSON"], {"out/report.json": "[]"}),
    Call(f"prepare table --root pairs {TO}", ["out/report.json", "damaged", "delete"], {"out/report.json": "{}"}),
    Call(f"prepare table --root pairs {TO}", ["out/report.json", "damaged", "delete"], {
        "out/report.json": '{"source": "nih"}'}),
]  # fmt: skip

TABLES = [
    Call(TABLE, ["mine.csv", "empty"], {"mine.csv": ""}),
    Call(TABLE, ["mine.csv", "no image | no row"], {"mine.csv": "image_path,patient_id\n"}),
    Call(TABLE, ["mine.csv", "image_path", "image_path=<column | --column"], {"mine.csv": table("path,age", "a,1")}),
    Call(TABLE, ["mine.csv", "image_path", "twice"], {"mine.csv": table("image_path,image_path", "a,b")}),
    Call(TABLE, ["mine.csv", "UTF-8 | encoding"], {"mine.csv": "image_path,sex\nmüde.png,F\n".encode("cp1252")}),
    Call(TABLE, ["mine.csv", "quot"], {"mine.csv": table("image_path,report", 'pairs/0.png,"a', "pairs/1.png,b")}),
    Call(TABLE, ["mine.csv", "no such file", "nothing.png"], {"mine.csv": table("image_path", "nothing.png")}),
    Call(TABLE, ["mine.csv", "root | --images"], {"mine.csv": table("image_path", "../other/0.png")}),
    Call(TABLE, ["mine.csv", "root | --images"], {"mine.csv": table("image_path", "/etc/hostname")}),
    Call(TABLE, ["mine.csv", "split", "train, val or test"], {"mine.csv": table("image_path,split", "pairs/0.png,fold7")}),
    Call(TABLE, ["mine.csv", "boxes"], {"mine.csv": table("image_path,boxes", "pairs/0.png,words")}),
    Call(TABLE, ["mine.csv", "box 1", "width"], {"mine.csv": table(
        "image_path,boxes", 'pairs/0.png,"[{""label"": ""a"", ""x"": 1, ""y"": 1, ""width"": 0, ""height"": 2}]"')}),
    Call(TABLE, ["mine.csv", "label_Edema", "often"], {"mine.csv": table("image_path,label_Edema", "pairs/0.png,often")}),
    Call(TABLE, ["mine.csv", "0.png", "PNG"], {"mine.csv": table("image_path", "a/0.png"), "a/0.png": "words"}),
    Call(TABLE, ["mine.csv", "0.png", "PostScript"], {"mine.csv": table("image_path", "a/0.png"), "a/0.png": EPS}),
    Call(TABLE, ["mine.csv", "0.png", "GIF"], {"mine.csv": table("image_path", "a/0.png"), "a/0.png": picture("GIF")}),
    Call(TABLE, ["mine.csv", "0.png", "empty"], {"mine.csv": table("image_path", "a/0.png"), "a/0.png": ""}),
    Call(TABLE, ["mine.csv", "0.dcm", "pixel"], {"mine.csv": table("image_path", "0.dcm"), "0.dcm": dicom()}),
    Call(TABLE, ["mine.csv", "0.dcm", "pixel | cut off | truncated"], {
        "mine.csv": table("image_path", "0.dcm"), "0.dcm": dicom(pixels=True, end=1500)}),
    Call(TABLE, ["mine.csv", "0.dcm", "DICOM | unknown"], {"mine.csv": table("image_path", "0.dcm"), "0.dcm": "words"}),
    Call(TABLE, ["mine.csv", "mask", "9×9"], {
        "mine.csv": table("image_path,mask_path", "pairs/0.png,m.png"), "m.png": picture(width=9, height=9)}),
    Call(TABLE, ["mine.csv", "mask_path | m.png"], {
        "mine.csv": table("image_path,mask_path", "pairs/0.png,m.png"), "m.png": EPS}),
    Call(TABLE, ["mine.csv", "no image_path | empty"], {"mine.csv": table("image_path,sex", ",F")}),
    Call(TABLE, ["mine.csv", "line 3 | row 2"], {"mine.csv": table("image_path,sex", "pairs/0.png,F", "a,F,x")}),
    Call(IN, ["12 | pairs", "no such file"], {f"pairs/{number}.png": None for number in range(12)}),
    Call(IN, ["pairs", "pairs.csv", "two.csv", "name the file"], {"pairs/two.csv": "image_path\n"}),
    Call(f"prepare table {TO} --root mine.parquet", ["mine.parquet", "parquet"], {"mine.parquet": "words"}),
    Call(f"prepare table {TO} --root mine.parquet", ["mine.parquet", "image_path"], {
        "mine.parquet": parquet(path=["a"])}),
    Call(f"prepare table {TO} --root mine.parquet", ["mine.parquet", "image_path"], {
        "mine.parquet": parquet(image_path=[["pairs/0.png"], ["pairs/1.png"]])}),
]  # fmt: skip

TREES = [
    tree("chexpert", "train.csv", "empty", files={f"{SMALL}/train.csv": ""}),
    tree("chexpert", "train.csv", "Path", files={f"{SMALL}/train.csv": "Image,Sex\na,F\n"}),
    tree("chexpert", "train.csv | valid.csv", "is there", files={f"{SMALL}/train.csv": None, f"{SMALL}/valid.csv": None}),
    tree("chexpert", "Path", "slash | \\ | layout", files={
        f"{SMALL}/train.csv": lambda path: path.write_text(path.read_text().replace("/", "\\")),
        f"{SMALL}/valid.csv": lambda path: path.write_text(path.read_text().replace("/", "\\"))}),
    tree("mimic-cxr", "metadata.csv.gz", "gzip | cut | csv", files={
        "tree-mimic-cxr/mimic-cxr-2.0.0-metadata.csv.gz": cut(60)}),
    tree("mimic-cxr", "metadata.csv.gz", "gzip | csv", files={
        "tree-mimic-cxr/mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id\n"}),
    tree("mimic-cxr", "split.csv.gz", files={"tree-mimic-cxr/mimic-cxr-2.0.0-split.csv.gz": "words"}),
    tree("mimic-cxr", "mimic-cxr-reports.zip", "zip", files={"tree-mimic-cxr/mimic-cxr-reports.zip": "words"}),
    tree("openi", "report", files={"tree-openi/ecgen-radiology": lambda path: [
        file.unlink() for file in path.iterdir()]}),
    tree("openi", "xml", files={"tree-openi/ecgen-radiology": lambda path: [
        file.write_text("<eCitation><a>") for file in path.iterdir()]}),
    tree("openi", "xml", files={"tree-openi/ecgen-radiology": lambda path: [
        file.write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>") for file in path.iterdir()]}),
    tree("nih", "Data_Entry", files={"tree-nih/Data_Entry_2017_v2020.csv": None}),
    tree("nih", "Data_Entry", "Image Index", files={"tree-nih/Data_Entry_2017_v2020.csv": "a,b\n1,2\n"}),
    tree("nih", "no such file | images", files={"tree-nih/images_001/images": lambda path: [
        file.unlink() for folder in path.parents[1].glob("images_*/images") for file in folder.iterdir()]}),
    tree("rsna", "stage_2_train_labels.csv", files={"tree-rsna/stage_2_train_labels.csv": None}),
    tree("rsna", "stage_2_train_labels.csv", "patientId", files={"tree-rsna/stage_2_train_labels.csv": "a,b\n1,2\n"}),
    tree("rsna", "stage_2_train_labels.csv", "x | width | number", files={
        "tree-rsna/stage_2_train_labels.csv": lambda path: path.write_text(
            path.read_text().splitlines()[0] + "\n" + "".join(
                f"{file.stem},wide,1,1,1,1\n" for file in path.parent.glob("stage_2_train_images/*.dcm")))}),
    tree("rsna", "mappings_2018.json", "JSON", files={
        "tree-rsna/pneumonia-challenge-dataset-mappings_2018.json": "{"}),
    tree("rsna", "mappings_2018.json", files={"tree-rsna/pneumonia-challenge-dataset-mappings_2018.json": "{}"}),
    tree("covidx", "train_COVIDx", files={"tree-covidx/train_COVIDx9A.txt": None}),
    tree("covidx", "train_COVIDx9A.txt | test_COVIDx9A.txt", files={
        "tree-covidx/train_COVIDx9A.txt": "a\n", "tree-covidx/test_COVIDx9A.txt": "a b\n"}),
    tree("siim", "train-rle.csv", files={"tree-siim/train-rle.csv": None}),
    tree("siim", "train-rle.csv", "EncodedPixels", files={"tree-siim/train-rle.csv": "ImageId\n1\n"}),
    tree("object-cxr", "train.csv", files={"tree-object-cxr/train.csv": None}),
    tree("object-cxr", "train.csv", "image_name | annotation", files={"tree-object-cxr/train.csv": "a,b\n1,2\n"}),
    tree("vindr", "image_labels_train.csv", files={"tree-vindr/annotations/image_labels_train.csv": None}),
    tree("vindr", "annotations_train.csv", "x_min", files={
        "tree-vindr/annotations/annotations_train.csv": "image_id,class_name\na,b\n"}),
]  # fmt: skip

CALLS = [*ROOTS, *OPTIONS, *TABLES, *TREES]
