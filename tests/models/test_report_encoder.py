"""Report encoders: random or from a folder, complete, in single precision, with the words they were trained on."""

import json
import os

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel
from transformers.utils import logging as transformers_logging

from cmcgns.common.errors import UserError
from cmcgns.data.reports.tokenizer import load_tokenizer
from cmcgns.models.report_encoder import ReportEncoder, pool_sentences
from cmcgns.settings.config import ReportEncoderSettings

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    transformers_logging.disable_progress_bar()


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    BertModel(BertConfig(**SIZES)).save_pretrained(str(tmp_path))
    return tmp_path


def scratch(**sizes):
    return ReportEncoderSettings(**({"layers": 2, "width": 16, "heads": 2, "dropout": 0.0} | sizes))


def slow_pool(tokens, owner, sentences):
    out = torch.zeros(len(tokens), sentences, tokens.shape[2])
    for study in range(len(tokens)):
        for sentence in range(sentences):
            own = [tokens[study, place] for place in range(tokens.shape[1]) if owner[study, place] == sentence]
            if own:
                out[study, sentence] = torch.stack(own).mean(0)
    return out


def test_sentences_are_the_means_of_their_own_word_pieces():
    torch.manual_seed(0)
    tokens, owner = torch.randn(3, 9, 4), torch.randint(-1, 4, (3, 9))
    owner[2] = -1
    assert torch.allclose(pool_sentences(tokens, owner, 5), slow_pool(tokens, owner, 5), atol=1e-6)
    assert not pool_sentences(tokens, owner, 5)[2].any(), "a report without words"


def test_pitfall_reports_special_tokens_do_not_move_a_sentence():
    tokens = torch.randn(1, 6, 4)
    owner = torch.tensor([[-1, 0, 0, 1, -1, -1]])
    before = pool_sentences(tokens, owner, 2)
    tokens[0, [0, 4, 5]] = 1e6
    assert torch.equal(pool_sentences(tokens, owner, 2), before)


def test_a_random_start_has_the_sizes_of_the_settings():
    encoder = ReportEncoder(scratch(), vocabulary=30, max_tokens=20)
    hidden = encoder(torch.zeros(2, 20, dtype=torch.long), torch.ones(2, 20, dtype=torch.bool))
    assert hidden.shape == (2, 20, 16)
    assert encoder.width == 16
    assert encoder.config["vocab_size"] == 30
    assert len(encoder.body.encoder.layer) == 2


def test_padding_and_other_reports_do_not_change_a_report():
    encoder = ReportEncoder(scratch(), 30, 20).eval()
    ids = torch.randint(5, 30, (2, 12))
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 8:] = False
    with torch.no_grad():
        both = encoder(ids, mask)[0, :8]
        alone = encoder(ids[:1, :8], mask[:1, :8])[0]
        ids[0, 8:] = 7
        ids[1] = 9
        changed = encoder(ids, mask)[0, :8]
    assert torch.allclose(both, alone, atol=1e-5)
    assert torch.allclose(both, changed, atol=1e-5)


def test_pitfall_12_every_trainable_parameter_gets_a_gradient():
    encoder = ReportEncoder(scratch(), 30, 20)
    assert [key for key, p in encoder.body.named_parameters() if not p.requires_grad] == [
        "pooler.dense.weight",
        "pooler.dense.bias",
    ]
    ids = torch.randint(5, 30, (2, 12))
    encoder(ids, torch.ones_like(ids).bool()).square().sum().backward()
    assert not [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None]


def test_a_local_folder_gives_its_own_hidden_states(folder):
    encoder = ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20).eval()
    ids = torch.randint(5, 50, (2, 12))
    with torch.no_grad():
        expected = BertModel.from_pretrained(str(folder)).eval()(ids).last_hidden_state
        assert torch.allclose(encoder(ids, torch.ones_like(ids).bool()), expected, atol=1e-6)


def test_the_saved_configuration_builds_the_same_module_without_the_folder(folder):
    encoder = ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20).eval()
    config = encoder.config
    again = ReportEncoder(ReportEncoderSettings(name="/gone"), 50, 20, config).eval()
    again.load_state_dict(encoder.state_dict())
    ids = torch.randint(5, 50, (2, 12))
    with torch.no_grad():
        assert torch.equal(again(ids, torch.ones_like(ids).bool()), encoder(ids, torch.ones_like(ids).bool()))


def test_pitfall_files_the_saved_configuration_names_no_folder_of_this_machine(folder):
    encoder = ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20)
    assert str(folder) not in str(encoder.config)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_read_in_single_precision(folder, dtype):
    BertModel(BertConfig(**SIZES)).to(dtype).save_pretrained(str(folder))
    encoder = ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    again = ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20, encoder.config)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


@pytest.mark.parametrize("lost", ["all", "one", "shape"])
def test_pitfall_11_weights_that_do_not_arrive_are_listed(folder, lost):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    key = "encoder.layer.0.output.dense.weight"
    changed = {
        "all": {f"other.{name}": value for name, value in tensors.items()},
        "one": {name: value for name, value in tensors.items() if name != key},
        "shape": tensors | {key: torch.zeros(3, 3)},
    }[lost]
    save_file(changed, path, metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"embeddings\.LayerNorm\.bias" if lost == "all" else r"output\.dense\.weight"
    ):
        ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20)


def test_a_missing_pooler_does_not_matter(folder):
    path = folder / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if "pooler" not in name}
    save_file(tensors, path, metadata={"format": "pt"})
    loaded = ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20).body.state_dict()
    used = [name for name in loaded if "pooler" not in name]
    assert used
    assert all(torch.equal(loaded[name], tensors[name]) for name in used if name in tensors)


def test_a_damaged_file_is_a_user_error(folder):
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 20)


def test_a_name_that_cannot_be_reached_says_what_can_be_given():
    with pytest.raises(UserError, match=r"nobody/nothing is neither a folder .* use a local folder, or `random`"):
        ReportEncoder(ReportEncoderSettings(name="nobody/nothing"), 50, 20)


def test_code_of_a_folder_is_not_run_even_if_the_terminal_says_yes(folder, monkeypatch):
    """transformers asks where nobody has told it, and runs the code on an answer of `y`."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    mark = folder / "was_run"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w')\n"
        "from transformers import BertConfig as C, BertModel as M, PreTrainedTokenizerFast as T\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for load in (
        lambda: ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 40),
        lambda: load_tokenizer(str(folder)),
    ):
        with pytest.raises(UserError, match="it asks for code of its own, which is not run") as caught:
            load()
        assert "trust" not in str(caught.value)
        assert not mark.exists()


class Code:
    def __reduce__(self):
        return (open, (os.environ["MARK"], "w"))


def test_code_in_the_weights_of_a_folder_is_not_run(folder, monkeypatch):
    monkeypatch.setenv("MARK", str(folder / "was_run"))
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"report_encoder\.name: ") as caught:
        ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 40)
    assert not (folder / "was_run").exists()
    assert "weights_only" not in str(caught.value)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        ReportEncoder(ReportEncoderSettings(name=str(tmp_path)), 50, 20)


def test_reports_longer_than_the_encoder_are_refused(folder):
    with pytest.raises(UserError, match=r"data\.max_tokens is 41, .* 40 positions: set data\.max_tokens=40"):
        ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 41)
    ReportEncoder(ReportEncoderSettings(name=str(folder)), 50, 40)


def test_roberta_counts_its_positions_behind_the_padding(tmp_path):
    RobertaModel(RobertaConfig(**SIZES)).save_pretrained(str(tmp_path))
    settings = ReportEncoderSettings(name=str(tmp_path))
    with pytest.raises(UserError, match=r"set data\.max_tokens=38"):
        ReportEncoder(settings, 50, 39)
    encoder = ReportEncoder(settings, 50, 38).eval()
    ids = torch.randint(5, 50, (1, 38))
    with torch.no_grad():
        assert torch.isfinite(encoder(ids, torch.ones_like(ids).bool())).all()


def test_a_tokenizer_of_another_encoder_is_refused(folder):
    with pytest.raises(UserError, match=r"tokenizer has 51 word pieces, .* knows 50"):
        ReportEncoder(ReportEncoderSettings(name=str(folder)), 51, 20)
