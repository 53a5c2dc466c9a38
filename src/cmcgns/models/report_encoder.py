"""Report encoders: any Hugging Face encoder, or a small BERT from scratch."""

from collections.abc import Callable
from pickle import UnpicklingError  # nosec B403 # to catch it
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import expanded
from cmcgns.models.freeze import freeze_unreached
from cmcgns.settings.config import ReportEncoderSettings

SCRATCH = "random"
_PLAIN_ATTENTION = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")


def pool_sentences(tokens: Tensor, token_sentence: Tensor, sentences: int) -> Tensor:
    """Mean of every sentence's own word pieces, as one batched matrix product.

    Args:
        tokens: (B, L, D).
        token_sentence: (B, L) sentence of each token; -1 belongs to none.
        sentences: M.

    Returns:
        (B, M, D); sentences without a token are 0.
    """
    index = torch.arange(sentences, device=tokens.device)
    member = (token_sentence[:, None, :] == index[None, :, None]).to(tokens.dtype)
    return (member / member.sum(-1, keepdim=True).clamp(min=1)) @ tokens


def in_parts(
    encode: Callable[[Tensor, Tensor], Tensor],
    words: Tensor,
    token_mask: Tensor,
    order: Tensor | None = None,
    lengths: tuple[int, ...] = (),
) -> Tensor:
    """What an encoder makes of a batch of reports, each part of which it reads at its own length.

    Args:
        encode: (b, l) word pieces, or (b, l, C) embeddings of such, and their mask -> (b, l, D).
        words: (B, L) or (B, L, C).
        token_mask: (B, L).
        order: (B,) from the shortest report to the longest; None: all at once.
        lengths: word pieces of the longest report in each part.

    Returns:
        (B, L, D); padding beyond a part's length is 0.
    """
    if order is None:
        return encode(words, token_mask)
    parts = [
        F.pad(encode(words[rows, :most], token_mask[rows, :most]), (0, 0, 0, words.shape[1] - most))
        for rows, most in zip(order.tensor_split(len(lengths)), lengths, strict=True)
    ]
    return torch.cat(parts)[order.argsort()]


class ReportEncoder(nn.Module):
    """A transformer over the word pieces of a report.

    Args:
        settings: name and, for a random start, sizes.
        vocabulary: size of the tokenizer.
        max_tokens: longest report in word pieces.
        config: saved Hugging Face configuration; given when a checkpoint will fill the parameters.

    Attributes:
        body: the plain transformers module.
        width: C of the last hidden state.
    """

    def __init__(
        self,
        settings: ReportEncoderSettings,
        vocabulary: int,
        max_tokens: int,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.body, missing = _create_body(settings, vocabulary, max_tokens, config)
        hf_config: Any = self.body.config
        self.width = int(hf_config.hidden_size)
        if vocabulary > hf_config.vocab_size:
            raise UserError(
                f"the tokenizer has {vocabulary} word pieces, but report encoder {settings.name} knows "
                f"{hf_config.vocab_size}: tokenizer and encoder do not belong together"
            )
        limit = positions(self.body)
        if limit is not None and max_tokens > limit:
            raise UserError(
                f"data.max_tokens is {max_tokens}, but report encoder {settings.name} has {limit} positions: "
                f"set data.max_tokens={limit}"
            )
        example = torch.zeros(1, min(4, max_tokens), dtype=torch.long)
        unused = freeze_unreached(self.body, lambda: self(example, torch.ones_like(example).bool()))
        if missing := missing - set(unused):
            shown = ", ".join(sorted(missing)[:8])
            raise UserError(
                f"report_encoder.name: {settings.name} lacks {len(missing)} of the weights that are used, "
                f"or holds them in another shape: {shown}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """What is needed to build the same module again."""
        content = dict(self.body.config.to_dict())
        content.pop("_name_or_path", None)  # a folder of this machine
        return content

    def forward(self, words: Tensor, token_mask: Tensor) -> Tensor:
        """(B, L) word pieces, or (B, L, C) embeddings of such, and their mask -> (B, L, C) last hidden state."""
        mask = token_mask.long()
        if _takes_whole_mask(self.body):
            # Given (B, L), transformers looks whether anything is padded at all, which a GPU has to wait for.
            mask = token_mask[:, None, None].expand(-1, 1, token_mask.shape[1], -1)
        given = {"inputs_embeds" if words.is_floating_point() else "input_ids": words}
        output = self.body(**given, attention_mask=mask)
        return output.last_hidden_state  # type: ignore[no-any-return]


def _create_body(
    settings: ReportEncoderSettings, vocabulary: int, max_tokens: int, config: dict[str, Any] | None
) -> tuple[Any, set[str]]:
    """The module, and the names of its parameters that no file has filled."""
    from transformers import AutoConfig, AutoModel, BertConfig

    if config is not None:
        config = dict(config)
        kind = config.pop("model_type", None)
        try:
            built = AutoConfig.for_model(kind, **config)
            return AutoModel.from_config(built, dtype=torch.float32), set()
        except (ValueError, TypeError) as error:
            raise UserError(
                f"report_encoder.json: this transformers cannot build its model_type {kind}: {one_line(error)}"
            ) from error
    if settings.name == SCRATCH:
        built = BertConfig(
            vocab_size=vocabulary,
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=4 * settings.width,
            max_position_embeddings=max_tokens,
            hidden_dropout_prob=settings.dropout,
            attention_probs_dropout_prob=settings.dropout,
        )
        body = AutoModel.from_config(built)
        # There is one segment only; its embedding would be a shift that all word pieces share.
        nn.init.zeros_(body.embeddings.token_type_embeddings.weight)
        return body, set()
    return _from_pretrained(settings.name, AutoModel)


def _takes_whole_mask(body: Any) -> bool:
    """Whether a Boolean (B, 1, L, L) mask goes straight to the attention: not where it is windowed or biased."""
    return body.config.model_type in _PLAIN_ATTENTION and body.config._attn_implementation == "sdpa"


def positions(body: Any) -> int | None:
    """Longest input; RoBERTa and its kin start to count behind the padding."""
    limit = getattr(body.config, "max_position_embeddings", None)
    table = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return limit if limit is None or padding is None else limit - padding - 1


def _from_pretrained(name: str, auto_model: Any) -> tuple[Any, set[str]]:
    local = expanded(name)
    if local.is_dir() and not (local / "config.json").is_file():
        raise UserError(f"report_encoder.name: {local} has no config.json; a transformers folder is expected")
    source = str(local) if local.is_dir() else name
    try:  # files may be in half precision; the loop decides on precision
        body, report = auto_model.from_pretrained(
            source,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,  # else transformers asks at the terminal whether to run a stranger's code
        )
    except UnpicklingError as error:  # torch's own message recommends to run the code
        raise UserError(
            f"report_encoder.name: the weights of {name} hold more than tensors, and their code is not run; save "
            "them once more, as .safetensors"
        ) from error
    except SafetensorError as error:
        raise UserError(f"report_encoder.name: the weights of {name} cannot be read: {one_line(error)}") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"report_encoder.name: {name} is neither a folder with a transformers model nor a hub name that can "
            f"be reached from here; use a local folder, or `random`. ({one_line(error)})"
        ) from error
    return body, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
