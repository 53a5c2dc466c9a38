"""A trained tokenizer depends on the set of sentences alone; a loaded one knows words."""

import json
import subprocess
import sys

import huggingface_hub.constants
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.reports.tokenizer import SPECIAL, encode_sentences, load_tokenizer, train_tokenizer

SENTENCES = [
    "The heart is enlarged.",
    "No pleural effusion.",
    "The lungs are clear; no edema.",
    "No large nodule near the heart.",
    "Clear lungs.",
    "Größe des Herzens normal.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 90)


def test_special_tokens_come_first_and_padding_is_zero(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id == 0
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_vocabulary_is_bounded(tokenizer):
    assert len(tokenizer) <= 90
    assert len(train_tokenizer(SENTENCES, 60)) == 60


def test_training_does_not_depend_on_order_or_repetition(tokenizer):
    for texts in (SENTENCES[::-1], SENTENCES * 3, set(SENTENCES)):
        assert train_tokenizer(texts, 90).get_vocab() == tokenizer.get_vocab()


def test_every_process_trains_the_same_vocabulary(tokenizer):
    """Ranks of one run train their tokenizers apart from each other."""
    program = (
        "import json, sys\nfrom cmcgns.data.reports.tokenizer import train_tokenizer\n"
        "print(json.dumps(train_tokenizer(json.loads(sys.argv[1]), 90).get_vocab()))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, json.dumps(SENTENCES)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(output) == tokenizer.get_vocab()


def test_words_decode_to_themselves_lower_cased_with_accents(tokenizer):
    (ids,) = encode_sentences(tokenizer, ["GRÖSSE normal"])
    assert tokenizer.decode(ids).startswith("gr")
    (ids,) = encode_sentences(tokenizer, ["Größe des Herzens"])
    assert tokenizer.decode(ids) == "größe des herzens"
    assert len(encode_sentences(tokenizer, ["heart"])[0]) == 1, "a frequent word is one piece"


def test_unknown_letters_are_one_unknown_word(tokenizer):
    assert encode_sentences(tokenizer, ["heart 中 heart€"])[0][1:] == [1, 1]


def test_no_special_tokens_are_added_or_read_from_the_text(tokenizer):
    for ids in encode_sentences(tokenizer, ["Clear lungs.", "clear [SEP] lungs [PAD] [CLS]"]):
        assert not {0, 2, 3, 4} & set(ids)
    assert encode_sentences(tokenizer, []) == []


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(str(tmp_path))
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert encode_sentences(loaded, SENTENCES) == encode_sentences(tokenizer, SENTENCES)
    assert (loaded.pad_token_id, loaded.cls_token_id, loaded.sep_token_id) == (0, 2, 3)


def test_folders_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match="neither a folder with a tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 100}))
    with pytest.raises(UserError, match="has no vocabulary"):  # transformers would call every word unknown
        load_tokenizer(str(tmp_path))


def test_unreachable_name_is_a_user_error(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"report_encoder\.name: nobody/nothing is neither"):
        load_tokenizer("nobody/nothing")


def test_a_tokenizer_without_cls_is_refused(tokenizer, tmp_path):
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]", sep_token="[SEP]")
    bare.save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match="has no cls_token; a BERT-like one is needed"):
        load_tokenizer(str(tmp_path))
