"""Reports as word pieces with a sentence number for each, tokenized once."""

import logging
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.reports.text import normalise_sentence, split_sentences, text_number
from cmcgns.data.reports.tokenizer import encode_sentences

logger = logging.getLogger(__name__)

Integers = NDArray[np.int64]
_TOKENS = 8  # padded lengths are multiples of it
MOST_UNKNOWN = 0.05  # of the word pieces; of reports in a tokenizer's own language it is a few in a thousand at most


@dataclass(frozen=True)
class ReportTokens:
    """All reports in flat arrays: report i owns [offsets[i], offsets[i+1]).

    Attributes:
        token_ids, token_sentence: word pieces ([CLS] and [SEP] included) and their sentence, -1 for specials.
        token_offsets: (n + 1,).
        sentence_text: numbers of the normalised sentences.
        sentence_offsets: (n + 1,).
        report_text: (n,) numbers of the whole normalised reports.
        padding: id of [PAD].
        max_tokens: the bound of a report; no batch is padded beyond it: an encoder may have no more positions.
        shortened: how many reports lost sentences or word pieces, by kind.
        unknown: share of the word pieces that are [UNK]: letters or words that the tokenizer was not made for.
    """

    token_ids: NDArray[np.int32]
    token_sentence: NDArray[np.int16]
    token_offsets: Integers
    sentence_text: Integers
    sentence_offsets: Integers
    report_text: Integers
    padding: int
    max_tokens: int
    shortened: dict[str, int]
    unknown: float

    def counts(self, rows: Integers) -> tuple[Integers, Integers]:
        """(n,) word pieces, and (n,) sentences, of some reports."""
        starts = self.token_offsets, self.sentence_offsets
        tokens, sentences = (offsets[rows + 1] - offsets[rows] for offsets in starts)
        return tokens, sentences

    def padded(
        self, rows: Integers, max_tokens: int | None = None, max_sentences: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """Arrays of a batch.

        Args:
            rows: (B,) reports.
            max_tokens: pad to this; None pads to the longest of the batch, rounded up to eight within the bound.
            max_sentences: pad to this; None pads to the most sentences of the batch.

        Returns:
            token_ids, token_mask, token_sentence (B, L); sentence_mask, sentence_text, report_sentences (B, M);
            report_text (B,).
        """
        tokens, sentences = self.counts(rows)
        length = max_tokens or min(round_up(int(tokens.max()), _TOKENS), self.max_tokens)
        bound = max_sentences or int(sentences.max())
        token_mask = np.arange(length) < tokens[:, None]
        sentence_mask = np.arange(bound) < sentences[:, None]
        at_token = np.where(token_mask, self.token_offsets[rows][:, None] + np.arange(length), 0)
        at_sentence = np.where(sentence_mask, self.sentence_offsets[rows][:, None] + np.arange(bound), 0)
        sentence_text = np.where(sentence_mask, self.sentence_text[at_sentence], 0)
        return {
            "token_ids": np.where(token_mask, self.token_ids[at_token], self.padding).astype(np.int64),
            "token_mask": token_mask,
            "token_sentence": np.where(token_mask, self.token_sentence[at_token], -1).astype(np.int64),
            "sentence_mask": sentence_mask,
            "sentence_text": sentence_text,
            "report_text": self.report_text[rows],
            "report_sentences": sentence_text,
        }


def round_up(count: int, multiple: int) -> int:
    """The next multiple, so that few different shapes occur."""
    return -(-count // multiple) * multiple


def length_groups(lengths: Integers, parts: int, multiple: int, most: int) -> tuple[Integers, tuple[int, ...]]:
    """Studies by the length of their reports, so that a short one need not be padded to the longest of its batch.

    Args:
        lengths: (B,) word pieces.
        parts: of nearly equal size.
        multiple: lengths are rounded up to one.
        most: but not beyond this.

    Returns:
        (B,) order, and the largest length of each part of it (as `np.array_split` cuts).
    """
    order = np.argsort(lengths, kind="stable")
    parts = max(1, min(parts, len(lengths) // 4))
    longest = (lengths[part].max() for part in np.array_split(order, parts))
    return order, tuple(min(round_up(int(length), multiple), most) for length in longest)


def drop_sentences(
    arrays: dict[str, NDArray[Any]], draws: NDArray[np.floating[Any]], rate: float, padding: int
) -> None:
    """Leave sentences out of padded reports, in place; what remains moves to the front.

    A report keeps at least the sentence with the largest draw. `report_text` still names the whole report.

    Args:
        arrays: of `ReportTokens.padded`.
        draws: (B, M) uniform numbers of the sentences, which are left out below `rate`.
        rate: probability of a sentence to go.
        padding: id of [PAD].
    """
    real = arrays["sentence_mask"]
    draws = np.where(real, draws, -1)
    keep = real & ((draws >= rate) | (draws == draws.max(1, keepdims=True)))
    owner = arrays["token_sentence"]
    keep_token = arrays["token_mask"] & ((owner < 0) | np.take_along_axis(keep, owner.clip(0), 1))
    renumbered = np.where(owner < 0, -1, np.take_along_axis(keep.cumsum(1) - 1, owner.clip(0), 1))
    order, sentence_order = (np.argsort(~mask, axis=1, kind="stable") for mask in (keep_token, keep))
    mask = np.take_along_axis(keep_token, order, 1)
    arrays["token_mask"] = mask
    arrays["token_ids"] = np.where(mask, np.take_along_axis(arrays["token_ids"], order, 1), padding)
    arrays["token_sentence"] = np.where(mask, np.take_along_axis(renumbered, order, 1), -1)
    arrays["sentence_mask"] = np.take_along_axis(keep, sentence_order, 1)
    arrays["sentence_text"] = np.take_along_axis(np.where(keep, arrays["sentence_text"], 0), sentence_order, 1)


def trim(arrays: dict[str, NDArray[Any]]) -> None:
    """Cut padding that no report of the batch needs, in place: word pieces to a multiple of eight."""
    length = round_up(int(arrays["token_mask"].sum(1).max()), _TOKENS)
    sentences = int(arrays["sentence_mask"].sum(1).max())
    for name in ("token_ids", "token_mask", "token_sentence"):
        arrays[name] = np.ascontiguousarray(arrays[name][:, :length])
    for name in ("sentence_mask", "sentence_text"):
        arrays[name] = np.ascontiguousarray(arrays[name][:, :sentences])


def tokenize_reports(texts: Iterable[str], tokenizer: Any, max_tokens: int, max_sentences: int) -> ReportTokens:
    """Split, tokenize and shorten reports.

    Every distinct sentence is tokenized once: most sentences of most reports repeat. Sentences beyond
    `max_sentences` and word pieces beyond `max_tokens` - 2 are cut from the end, and counted in the log; so are
    reports of which the tokenizer knows nothing.
    """
    seen: dict[str, int] = {}
    # Lists of strings take 9 GB for a million reports, typed arrays of numbers a tenth of a gigabyte.
    reports = [array("i", [seen.setdefault(each, len(seen)) for each in split_sentences(text)]) for text in texts]
    pieces = encode_sentences(tokenizer, list(seen))
    normalised = [normalise_sentence(sentence) for sentence in seen]
    numbers = [text_number(sentence) for sentence in normalised]
    shortened = {"sentences": 0, "word pieces": 0}
    token_ids, owners, sentence_text, report_text = array("i"), array("h"), array("q"), array("q")
    token_counts, sentence_counts = array("i"), array("i")
    for sentences in reports:
        used = sentences[:max_sentences]
        ids, owner, kept = _assemble([pieces[s] for s in used], tokenizer, max_tokens)
        shortened["sentences"] += len(sentences) > max_sentences
        shortened["word pieces"] += len(ids) - 2 < sum(len(pieces[s]) for s in used)
        token_ids.extend(ids)
        owners.extend(owner)
        token_counts.append(len(ids))
        sentence_text.extend(numbers[s] for s in used[:kept])
        sentence_counts.append(kept)
        report_text.append(text_number("\n".join(normalised[s] for s in sentences)))
    for kind, count in shortened.items():
        if count:
            bound = max_sentences if kind == "sentences" else max_tokens
            logger.warning("%d of %d reports have more than %d %s: cut", count, len(report_text), bound, kind)
    ids_of_all, owner_of_all = np.frombuffer(token_ids, dtype=np.int32), np.frombuffer(owners, dtype=np.int16)
    offsets = _offsets(token_counts)
    return ReportTokens(
        token_ids=ids_of_all,
        token_sentence=owner_of_all,
        token_offsets=offsets,
        sentence_text=np.frombuffer(sentence_text, dtype=np.int64),
        sentence_offsets=_offsets(sentence_counts),
        report_text=np.frombuffer(report_text, dtype=np.int64),
        padding=int(tokenizer.pad_token_id),
        max_tokens=max_tokens,
        shortened=shortened,
        unknown=_unknown_share(ids_of_all, owner_of_all, offsets, tokenizer),
    )


def _unknown_share(ids: NDArray[np.int32], owners: NDArray[np.int16], offsets: Integers, tokenizer: Any) -> float:
    """The share of unknown word pieces; too many, and reports that consist of them, are warned of."""
    real = owners >= 0
    unk = getattr(tokenizer, "unk_token_id", None)  # tokenizers of bytes know everything
    unknown = real & (ids == unk) if unk is not None else np.zeros_like(real)
    if not unknown.any():
        return 0.0
    share = float(unknown.sum() / real.sum())
    in_reports = [np.add.reduceat(each, offsets[:-1], dtype=np.int64) for each in (real, unknown)]
    lost = int(((in_reports[0] > 0) & (in_reports[0] == in_reports[1])).sum())
    if share > MOST_UNKNOWN or lost:
        logger.warning(
            "%.1f %% of the word pieces are unknown to the tokenizer (of %d of %d reports all): they say nothing to "
            "the encoder, which was made for other letters or another language",
            100 * share, lost, len(offsets) - 1,
        )  # fmt: skip
    return share


def _assemble(pieces: list[list[int]], tokenizer: Any, max_tokens: int) -> tuple[list[int], list[int], int]:
    """Word pieces and owners of one report, and how many sentences kept at least one word piece."""
    ids = [piece for sentence in pieces for piece in sentence][: max_tokens - 2]
    owner = [number for number, sentence in enumerate(pieces) for _ in sentence][: max_tokens - 2]
    kept = owner[-1] + 1 if owner else 0
    return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id], [-1, *owner, -1], kept


def _offsets(lengths: Sequence[int]) -> Integers:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
