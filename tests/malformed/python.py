"""Calls from Python: `cmcgns.load` and what it gives; `model` is a loaded run, `np`, `Image` and `Path` are there."""

from malformed.call import Call
from malformed.faults import EPS, cut, dicom, folder, picture

LOAD = [
    Call("load('nowhere')", ["nowhere", "run folder"]),
    Call("load('pairs')", ["pairs", "config.yaml", "run folder"]),
    Call("load('pairs/0.png')", ["pairs/0.png", "run folder"]),
    Call("load('')", ["run folder"]),
    Call("load(None)", ["run | path"]),
    Call("load(3)", ["run | path"]),
    Call("load('run', device='tpu')", ["tpu", "cpu", "cuda"]),
    Call("load('run', device='cuda:99')", ["cuda:99", "device"]),
    Call("load('run')", ["model.safetensors", "--resume"], {"run/model.safetensors": None}),
    Call("load('run')", ["run/model.safetensors", "damaged | read | cut off"], {"run/model.safetensors": cut(99)}),
    Call("load('run')", ["run/config.yaml", "YAML"], {"run/config.yaml": "a: ["}),
]

IMAGES = [
    Call("model.embed_image('pairs/0.png')", ["embed_image", "list", "['pairs/0.png']"]),
    Call("model.embed_image(Path('pairs/0.png'))", ["embed_image", "list"]),
    Call("model.embed_image([])", ["embed_image", "empty list"]),
    Call("model.embed_image(None)", ["embed_image", "list"]),
    Call("model.embed_image(3)", ["embed_image", "list"]),
    Call("model.embed_image([None])", ["path", "array"]),
    Call("model.embed_image([3])", ["path", "array"]),
    Call("model.embed_image(['nothing.png'])", ["nothing.png", "no such file"]),
    Call("model.embed_image([''])", ["no such | not a file"]),
    Call("model.embed_image(['pairs'])", ["pairs", "not a file"]),
    Call("model.embed_image(['ftp://host/a.png'])", ["ftp://host/a.png", "http"]),
    Call("model.embed_image(['a\\0b.png'])", ["no such | cannot be read"]),
    Call("model.embed_image(['pairs/0.png'], batch_size=0)", ["batch_size", "1"]),
    Call("model.embed_image(['pairs/0.png'], batch_size=-1)", ["batch_size", "1"]),
    Call("model.embed_image([np.zeros((9, 9))])", ["array", "uint8", "float64"]),
    Call("model.embed_image([np.zeros((0, 9), np.uint8)])", ["array", "(0, 9)"]),
    Call("model.embed_image([np.zeros((1, 9, 9), np.uint8)])", ["array", "(H, W)", "(1, 9, 9)"]),
    Call("model.embed_image([np.zeros((9, 9), np.int8)])", ["array", "uint8", "int8"]),
    Call("model.embed_image([Image.new('F', (9, 9))])", ["mode F", "8 bits"]),
    Call("model.embed_image(['a.png'])", ["a.png", "empty file"], {"a.png": ""}),
    Call("model.embed_image(['a.png'])", ["a.png", "PNG"], {"a.png": "words"}),
    Call("model.embed_image(['a.png'])", ["a.png", "PostScript"], {"a.png": EPS}),
    Call("model.embed_image(['a.png'])", ["a.png", "GIF"], {"a.png": picture("GIF")}),
    Call("model.embed_image(['a.png'])", ["a.png", "cut off | truncated"], {"a.png": picture()[:60]}),
    Call("model.embed_image(['a.dcm'])", ["a.dcm", "pixel"], {"a.dcm": dicom()}),
    Call("model.embed_image(['a.dcm'])", ["a.dcm", "pixel | cut off | truncated"], {"a.dcm": dicom(True, 1500)}),
    Call("model.embed_image(['a.png'])", ["a.png", "not a file"], {"a.png": folder}),
]

TEXTS = [
    Call("model.embed_text('Clear lungs.')", ["embed_text", "list", "['Clear lungs.']"]),
    Call("model.embed_text([])", ["embed_text", "empty list"]),
    Call("model.embed_text(None)", ["embed_text", "list"]),
    Call("model.embed_text([None])", ["text 0", "None"]),
    Call("model.embed_text(['Clear.', float('nan')])", ["text 1", "nan"]),
    Call("model.embed_text([3])", ["text 0", "3"]),
    Call("model.embed_text([b'Clear.'])", ["text 0", "bytes | b'"]),
    Call("model.embed_text([''])", ["text 0", "no words"]),
    Call("model.embed_text(['Clear.', '...'])", ["text 1", "no words"]),
    Call("model.embed_text(['Clear.'], batch_size=0)", ["batch_size", "1"]),
]

FINDINGS = [
    Call("model.zero_shot([], ['Edema'])", ["empty list | no picture"]),
    Call("model.zero_shot(['pairs/0.png'], [])", ["zero_shot", "list of labels"]),
    Call("model.zero_shot(['pairs/0.png'], 'Edema')", ["zero_shot", "['Edema']"]),
    Call("model.zero_shot(['pairs/0.png'], None)", ["zero_shot", "labels"]),
    Call("model.zero_shot(['pairs/0.png'], [3])", ["zero_shot | label", "3"]),
    Call("model.zero_shot(['pairs/0.png'], ['Edema', 'Edema'])", ["Edema", "twice"]),
    Call("model.zero_shot(['pairs/0.png'], {'Edema': 'Edema.'})", ["Edema", "sentences"]),
    Call("model.zero_shot(['pairs/0.png'], {'Edema': (['Edema.'], [])})", ["Edema", "deny | empty"]),
    Call("model.zero_shot(['pairs/0.png'], ['...'])", ["...", "word"]),
    Call("model.zero_shot(['nothing.png'], ['Edema'])", ["nothing.png", "no such file"]),
    Call("model.ground('nothing.png', 'Edema.')", ["nothing.png", "no such file"]),
    Call("model.ground('pairs/0.png', '')", ["text 0 | phrase", "word"]),
    Call("model.ground('pairs/0.png', None)", ["phrase", "None"]),
    Call("model.ground('pairs/0.png', ['Edema.'])", ["phrase", "string"]),
    Call("model.ground(['pairs/0.png'], 'Edema.')", ["picture", "list"]),
    Call("model.ground('pairs/0.png', 'Edema.', kind='heat')", ["heat", "pooled", "attention"]),
    Call("model.ground('pairs/0.png', 'Edema.', against='...')", ["against | text", "word"]),
]

CALLS = [*LOAD, *IMAGES, *TEXTS, *FINDINGS]
