"""Word-piece tokenizers: loaded with a pretrained encoder, or trained on the reports."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import expanded
from cmcgns.data.reports.text import compose

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# A word of more than 100 characters is [UNK] as a whole. Learning from one takes time with the square of its length.
_ENDLESS_WORD = re.compile(r"\S{101,}")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a lower-casing word-piece tokenizer.

    Args:
        texts: distinct sentences; sorted first, so that their order does not matter.
        vocabulary: largest number of word pieces.

    Returns:
        A transformers tokenizer with [PAD] = 0.
    """
    from tokenizers import trainers
    from transformers import PreTrainedTokenizerFast

    texts = sorted({_ENDLESS_WORD.sub(" ", compose(text)) for text in texts})
    learner = _word_pieces()
    # The trainer numbers letters inside words in the order of a randomly seeded hash map, and breaks ties by number:
    # every process (and every rank) would get another vocabulary. Naming them beforehand fixes their numbers.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *_inner_letters(learner, texts)],
        show_progress=False,
        min_frequency=2,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = _word_pieces(learner.get_vocab())
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _word_pieces(vocabulary: dict[str, int] | None = None) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # nosec B106 # no password
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _inner_letters(tokenizer: Any, texts: list[str]) -> list[str]:
    """Word pieces of one letter that goes on with a word, such as ##a."""
    words: set[str] = set()
    for text in texts:
        normalised = tokenizer.normalizer.normalize_str(text)
        words |= {word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised)}
    return [f"##{letter}" for letter in sorted({letter for word in words for letter in word[1:]})]


def load_tokenizer(name: str) -> Any:
    """Load a tokenizer from a folder or by hub name.

    Raises:
        UserError: not found, or without the special tokens that are needed.
    """
    from transformers import AutoTokenizer

    local = expanded(name)
    try:
        # Left open, transformers asks at the terminal whether to run a stranger's code.
        source = str(local) if local.is_dir() else name
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)  # nosec B615 # the user names it
    except (OSError, ValueError) as error:
        raise UserError(
            f"report_encoder.name: {name} is neither a folder with a tokenizer (tokenizer.json or vocab.txt) nor a "
            f"hub name that can be reached from here; use a local folder, or `random`. ({one_line(error)})"
        ) from error
    for special in ("cls_token_id", "sep_token_id", "pad_token_id"):
        if getattr(tokenizer, special) is None:
            raise UserError(f"tokenizer {name} has no {special.removesuffix('_id')}; a BERT-like one is needed")
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        raise UserError(f"tokenizer {name} has no vocabulary: its files (tokenizer.json or vocab.txt) are missing")
    return tokenizer


def load_saved_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a run from its folder.

    Raises:
        UserError: missing or damaged; names the folder.
    """
    try:
        return load_tokenizer(str(folder))
    except UserError as error:
        reason = one_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        kind = "damaged" if folder.is_dir() else "missing"
        raise UserError(f"{folder} is {kind}: copy it again from where the run was made ({reason})") from None


def encode_sentences(tokenizer: Any, sentences: list[str]) -> list[list[int]]:
    """Word pieces of every sentence, without special tokens; at least one each.

    Letters and their accents are one character first, as in the vocabularies of published tokenizers.
    """
    if not sentences:
        return []
    encoded = tokenizer(
        [compose(sentence) for sentence in sentences],
        add_special_tokens=False,
        split_special_tokens=True,  # "[SEP]" in a report is text
        return_attention_mask=False,
        verbose=False,  # a long sentence is cut to the bound later, and counted then
    )
    # Letters that are newer than the tokenizers library are passed over; a sentence of them would be empty.
    return [list(ids) or [getattr(tokenizer, "unk_token_id", None) or 0] for ids in encoded["input_ids"]]
