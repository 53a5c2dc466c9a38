"""`cmcgns pretrain` on tables, pictures and shards that are not what they should be."""

from malformed.call import Call
from malformed.faults import EPS, PAIRS, column, cut, dicom, folder, link, parquet, picture, replaced, setting, table

MINE = "pretrain tiny.yaml --out out --data mine.csv"
PARQUET = "pretrain tiny.yaml --out out --data mine.parquet"
IN = "pretrain tiny.yaml --out out --data pairs"
SHARDS = "pretrain tiny.yaml --out out --set data.image_size=32 --data shards"
LEAVE = "data.bad_images=leave_out"
ROW = "pairs/0.png,p,Clear."

TABLES = [
    Call(MINE, ["mine.csv", "empty"], {"mine.csv": ""}),
    Call(MINE, ["mine.csv", "no row"], {"mine.csv": f"{PAIRS}\n"}),
    Call(MINE, ["mine.csv", "image_path", "path, patient_id, report", "data.columns"], {
        "mine.csv": table("path,patient_id,report", ROW)}),
    Call(MINE, ["mine.csv", "report", "findings", "data.columns"], {"mine.csv": table("image_path,words", "a,b")}),
    Call(MINE, ["mine.csv", "report", "twice"], {"mine.csv": table("image_path,report,report", ROW)}),
    Call(MINE, ["mine.csv", "UTF-8 | encoding"], {"mine.csv": f"{PAIRS}\npairs/0.png,p,Müde.\n".encode("cp1252")}),
    Call(MINE, ["mine.csv", "no row"], {"mine.csv": f"{PAIRS}\npairs/0\0.png,p,Clear.\n".encode()}),
    Call(MINE, ["mine.csv", "text | zip | csv"], {"mine.csv": b"PK\x03\x04" + bytes(range(256)) * 9}),
    Call(MINE, ["mine.csv", "quot"], {"mine.csv": table(PAIRS, 'pairs/0.png,p,"Clear.', "pairs/1.png,q,Clear.")}),
    Call(MINE, ["mine.csv", "quot"], {
        "mine.csv": table(PAIRS, 'pairs/0.png,p,"Clear.', "pairs/1.png,q,Clear.", 'pairs/2.png,r,"Clear."')}),
    Call(MINE, ["mine.csv", "no row is left"], {"mine.csv": table(PAIRS, f"pairs/0.png,p,{'word ' * 400_000}")}),
    Call(MINE, ["mine.csv", "line 3 | row 2", "field | cells | columns"], {"mine.csv": table(PAIRS, ROW, ROW + ",x")}),
    Call(MINE, ["mine.csv", "rows [1, 2]", "one row"], {"mine.csv": table(PAIRS, ROW, ROW)}),
    Call(MINE, ["mine.csv", "study_id s", "2 patients"], {"mine.csv": table(
        "image_path,study_id,patient_id,report", "pairs/0.png,s,p,Clear.", "pairs/1.png,s,q,Clear.")}),
    Call(MINE, ["mine.csv", "image_path", "row 2"], {"mine.csv": table(PAIRS, ROW, ",q,Clear.")}),
    Call(MINE, ["mine.csv", "no row is left", "report"], {"mine.csv": table(PAIRS, "pairs/0.png,p,", "pairs/1.png,q,")}),
    Call(MINE, ["mine.csv", "no row is left"], {"mine.csv": table(PAIRS, "pairs/0.png,p,...", "pairs/1.png,q,--")}),
    Call(MINE, ["mine.csv", "split", "found: fold7"], {"mine.csv": table(f"{PAIRS},split", f"{ROW},fold7")}),
    Call(MINE, ["mine.csv", "view", "no row is left"], {"mine.csv": table(f"{PAIRS},view", f"{ROW},LATERAL")}),
    Call(MINE, ["mine.csv", "one patient"], {"mine.csv": table(PAIRS, *(f"pairs/{n}.png,p,Clear." for n in range(9)))}),
    Call(MINE, ["mine.csv", "no such file or folder"], {}),
    Call(MINE, ["mine.csv", "link | no such"], {"mine.csv": link("mine.csv")}),
    Call("pretrain tiny.yaml --out out --data mine.csv.gz", ["mine.csv.gz", "no row"], {"mine.csv.gz": f"{PAIRS}\n"}),
    Call("pretrain tiny.yaml --out out --data mine.json", ["mine.json", "image_path", "separator"], {"mine.json": "[]"}),
    Call("pretrain tiny.yaml --out out --data mine.xlsx", ["mine.xlsx", "Excel", "CSV"], {"mine.xlsx": b"PK\x03\x04"}),
    Call(PARQUET, ["mine.parquet", "parquet"], {"mine.parquet": f"{PAIRS}\n{ROW}\n"}),
    Call(PARQUET, ["mine.parquet", "parquet | empty"], {"mine.parquet": ""}),
    Call(PARQUET, ["mine.parquet", "parquet"], {"mine.parquet": b"PAR1" + bytes(99)}),
    Call(PARQUET, ["mine.parquet", "image_path"], {"mine.parquet": parquet(path=["a"], report=["b"])}),
    Call(PARQUET, ["mine.parquet", "no row"], {"mine.parquet": parquet(image_path=[], report=[])}),
    Call(PARQUET, ["mine.parquet", "report", "text"], {
        "mine.parquet": parquet(image_path=["pairs/0.png", "pairs/1.png"], report=[["Clear."], ["Normal."]])}),
    Call(PARQUET, ["mine.parquet", "image_path", "text | no such | missing"], {
        "mine.parquet": parquet(image_path=[{"bytes": b"x"}], report=["Clear."])}),
    Call(PARQUET, ["mine.parquet", "image_path", "row 2"], {
        "mine.parquet": parquet(image_path=["pairs/0.png", None], report=["Clear.", "Clear."])}),
    Call("pretrain tiny.yaml --out out --data data", ["data/manifest.parquet", "report | findings"], {
        "data/manifest.parquet": parquet(image_path=["a"], label_Edema=[1])}),
]  # fmt: skip

PICTURES = [
    Call(IN, ["row 4", "pairs/3.png", LEAVE], {"pairs/3.png": None}),
    Call(IN, ["row 4", "pairs/3.png", "empty file", LEAVE], {"pairs/3.png": ""}),
    Call(IN, ["row 4", "pairs/3.png", "PNG", LEAVE], {"pairs/3.png": "a picture of a chest"}),
    Call(IN, ["row 4", "pairs/3.png", "cut off | truncated | incomplete", LEAVE], {"pairs/3.png": cut(60)}),
    Call(IN, ["row 4", "pairs/3.png", "PostScript", LEAVE], {"pairs/3.png": EPS}),
    Call(IN, ["row 4", "pairs/3.png", "GIF", LEAVE], {"pairs/3.png": picture("GIF")}),
    Call(IN, ["row 4", "pairs/3.png", "BMP", LEAVE], {"pairs/3.png": picture("BMP")}),
    Call(IN, ["row 4", "pairs/3.png", "TIFF", LEAVE], {"pairs/3.png": picture("TIFF")}),
    Call(IN, ["row 4", "pairs/3.png", "WebP", LEAVE], {"pairs/3.png": picture("WEBP")}),
    Call(IN, ["row 4", "pairs/3.png", "web page", LEAVE], {"pairs/3.png": "<!doctype html><p>404</p>"}),
    Call(IN, ["row 4", "pairs/3.png", "Git LFS"], {"pairs/3.png": "version https://git-lfs.github.com/spec/v1\n"}),
    Call(IN, ["row 4", "pairs/3.png", LEAVE], {"pairs/3.png": folder}),
    Call(IN, ["row 4", "pairs/3.png", LEAVE], {"pairs/3.png": link("3.png")}),
    Call(IN, ["row 4", "pairs/3.png", "DICOM", "cmcgns prepare table"], {"pairs/3.png": dicom(pixels=True)}),
    Call(IN, ["row 4", "pairs/3.png", "pixels"], {"pairs/3.png": picture(width=30_000, height=30_000)[:9000]}),
    Call(IN, ["12 image", "pairs/bilder/0.png", "row 1"], {"pairs/pairs.csv": replaced("\n", "\nbilder/")}),
    Call(IN, ["12 image", "Windows | backslash | \\"], {"pairs/pairs.csv": replaced("\n", "\nC:\\images\\")}),
    Call(IN, ["row 1", "ftp://", "http | s3"], {"pairs/pairs.csv": replaced("0.png,p0", "ftp://host/0.png,p0")}),
    Call(f"{IN} --set {LEAVE}", ["no row is left | none", "pairs.csv"], {
        "pairs/pairs.csv": replaced("\n", "\nnowhere/")}),
]  # fmt: skip

SHARD_CALLS = [
    Call(SHARDS, ["shards.json", "JSON | damaged | again"], {"shards/shards.json": cut(40)}),
    Call(SHARDS, ["shards.json", "empty | again"], {"shards/shards.json": ""}),
    Call(SHARDS, ["shards.json", "mapping | again | object"], {"shards/shards.json": "[]"}),
    Call(SHARDS, ["shards.json", "shards", "again"], {"shards/shards.json": setting(shards="many")}),
    Call(SHARDS, ["manifest.parquet", "missing", "again"], {"shards/manifest.parquet": None}),
    Call(SHARDS, ["manifest.parquet", "again"], {"shards/manifest.parquet": column("report", "Other.")}),
    Call("check shards", ["shards", "prepared folder"]),
    Call(
        "pretrain tiny.yaml --out out --data http://127.0.0.1:9/data", ["http://127.0.0.1:9/data", "connect | reach"]
    ),
    Call("pretrain tiny.yaml --out out --data s3://", ["s3:", "no such"]),
]

CALLS = [*TABLES, *PICTURES, *SHARD_CALLS]
