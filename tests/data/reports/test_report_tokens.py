"""Word pieces know their sentence, also after shortening; padding agrees with a slow loop."""

import logging

import numpy as np
import pytest

from cmcgns.data.reports.text import normalise_sentence, split_sentences, text_number
from cmcgns.data.reports.tokenizer import encode_sentences, train_tokenizer
from cmcgns.data.reports.tokens import drop_sentences, tokenize_reports, trim

TEXTS = [
    "The heart is enlarged. No effusion. Normal.",
    "Normal.",
    "",
    "No effusion. no EFFUSION. The lungs are clear. The heart is enlarged and the lungs are clear.",
    "The lungs are clear.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([s for text in TEXTS for s in split_sentences(text)], 200)


def report(tokens, row):
    ids = tokens.token_ids[tokens.token_offsets[row] : tokens.token_offsets[row + 1]]
    owner = tokens.token_sentence[tokens.token_offsets[row] : tokens.token_offsets[row + 1]]
    sentences = tokens.sentence_text[tokens.sentence_offsets[row] : tokens.sentence_offsets[row + 1]]
    return ids.tolist(), owner.tolist(), sentences.tolist()


def test_every_word_piece_belongs_to_the_sentence_it_was_made_from(tokenizer):
    tokens = tokenize_reports(TEXTS, tokenizer, 100, 10)
    for row, text in enumerate(TEXTS):
        ids, owner, numbers = report(tokens, row)
        sentences = split_sentences(text)
        for number, pieces in enumerate(encode_sentences(tokenizer, sentences)):
            assert [i for i, o in zip(ids, owner, strict=True) if o == number] == pieces
        assert numbers == [text_number(normalise_sentence(s)) for s in sentences]
    assert tokens.shortened == {"sentences": 0, "word pieces": 0}


def test_pitfall_reports_cls_and_sep_are_words_of_no_sentence(tokenizer):
    tokens = tokenize_reports(TEXTS, tokenizer, 100, 10)
    for row in range(len(TEXTS)):
        ids, owner, _ = report(tokens, row)
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert (owner[0], owner[-1]) == (-1, -1)
        assert -1 not in owner[1:-1]
        special = {tokenizer.cls_token_id, tokenizer.sep_token_id}
        assert not special & {i for i, o in zip(ids, owner, strict=True) if o >= 0}


@pytest.mark.parametrize("max_tokens", range(3, 16))
def test_pitfall_reports_sentence_indices_after_truncation(tokenizer, max_tokens):
    whole = tokenize_reports(TEXTS, tokenizer, 100, 10)
    cut = tokenize_reports(TEXTS, tokenizer, max_tokens, 10)
    shortened = 0
    for row in range(len(TEXTS)):
        all_ids, all_owner, all_numbers = report(whole, row)
        ids, owner, numbers = report(cut, row)
        assert len(ids) == min(len(all_ids), max_tokens)
        assert ids == [*all_ids[: len(ids) - 1], tokenizer.sep_token_id]
        assert owner == [*all_owner[: len(ids) - 1], -1]
        assert numbers == all_numbers[: len(numbers)]
        assert sorted(set(owner) - {-1}) == list(range(len(numbers))), "every kept sentence has a word piece"
        shortened += len(ids) < len(all_ids)
    assert cut.shortened == {"sentences": 0, "word pieces": shortened}


def test_sentences_are_cut_from_the_end_and_counted(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        cut = tokenize_reports(TEXTS, tokenizer, 100, 2)
    whole = tokenize_reports(TEXTS, tokenizer, 100, 10)
    assert [len(report(cut, row)[2]) for row in range(5)] == [2, 1, 0, 2, 1]
    assert report(cut, 0)[2] == report(whole, 0)[2][:2]
    assert cut.shortened == {"sentences": 2, "word pieces": 0}
    assert "2 of 5 reports have more than 2 sentences: cut" in caplog.text
    assert cut.report_text.tolist() == whole.report_text.tolist(), "the identity of a report is that of the whole"


def test_word_pieces_cut_are_in_the_log(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        tokenize_reports(TEXTS, tokenizer, 8, 10)
    longer = sum(length > 8 for length in np.diff(tokenize_reports(TEXTS, tokenizer, 100, 10).token_offsets))
    assert 0 < longer < 5
    assert f"{longer} of 5 reports have more than 8 word pieces: cut" in caplog.text


def test_equal_text_has_equal_numbers(tokenizer):
    tokens = tokenize_reports(TEXTS, tokenizer, 100, 10)
    _, _, numbers = report(tokens, 3)
    assert numbers[0] == numbers[1] == report(tokens, 0)[2][1]
    assert len(set(tokens.sentence_text.tolist())) == 5
    same = tokenize_reports(
        ["Heart normal.  Lungs clear!", "heart NORMAL. Lungs clear"], tokenizer, 100, 10
    ).report_text
    assert same[0] == same[1]
    other = tokenize_reports(
        ["Heart normal. Lungs clear.", "Lungs clear. Heart normal."], tokenizer, 100, 10
    ).report_text
    assert other[0] != other[1]


def slow_padded(tokens, rows, length, bound):
    out = {
        "token_ids": np.full((len(rows), length), tokens.padding),
        "token_mask": np.zeros((len(rows), length), bool),
        "token_sentence": np.full((len(rows), length), -1),
        "sentence_mask": np.zeros((len(rows), bound), bool),
        "sentence_text": np.zeros((len(rows), bound), np.int64),
        "report_text": np.array([tokens.report_text[row] for row in rows]),
    }
    out["report_sentences"] = out["sentence_text"]  # until sentences are dropped
    for place, row in enumerate(rows):
        ids, owner, numbers = report(tokens, row)
        for position, (piece, sentence) in enumerate(zip(ids, owner, strict=True)):
            out["token_ids"][place, position] = piece
            out["token_mask"][place, position] = True
            out["token_sentence"][place, position] = sentence
        for position, number in enumerate(numbers):
            out["sentence_mask"][place, position] = True
            out["sentence_text"][place, position] = number
    return out


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [3, 0], [1], [4, 4, 2]])
@pytest.mark.parametrize("bounds", [(), (40, 7)])
def test_padding_agrees_with_a_slow_loop(tokenizer, rows, bounds):
    tokens = tokenize_reports(TEXTS, tokenizer, 40, 7)
    lengths = [len(report(tokens, row)[0]) for row in rows]
    expected = slow_padded(
        tokens, rows, *(bounds or ((max(lengths) + 7) // 8 * 8, max(len(report(tokens, r)[2]) for r in rows)))
    )
    found = tokens.padded(np.array(rows), *bounds)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert (found[name] == array).all(), name


@pytest.mark.parametrize("bound", range(3, 40))
def test_no_batch_is_padded_beyond_the_positions_of_an_encoder(tokenizer, bound):
    """Rounding up to eight may not pass a bound that is no multiple of eight."""
    tokens, rows = tokenize_reports(TEXTS, tokenizer, bound, 7), np.arange(len(TEXTS))
    longest = int(np.diff(tokens.token_offsets).max())
    lengths = [length for length in range(longest, bound + 1) if length % 8 == 0] or [bound]
    arrays = tokens.padded(rows)
    assert arrays["token_ids"].shape == (len(rows), lengths[0])
    assert (arrays["token_mask"].sum(1) == np.diff(tokens.token_offsets)).all(), "nothing is lost"
    trim(arrays)
    assert arrays["token_ids"].shape == (len(rows), lengths[0])


def test_fixed_bounds_give_one_shape(tokenizer):
    tokens = tokenize_reports(TEXTS, tokenizer, 40, 7)
    shapes = {
        tuple(array.shape[1:] for array in tokens.padded(np.array(rows), 40, 7).values()) for rows in ([0], [1], [3])
    }
    assert shapes == {((40,), (40,), (40,), (7,), (7,), (), (7,))}


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.99])
def test_dropping_sentences_equals_reports_that_never_had_them(tokenizer, rate):
    tokens, rng = tokenize_reports(TEXTS, tokenizer, 100, 10), np.random.default_rng(3)
    for _ in range(10):
        found = tokens.padded(np.arange(5))
        draws = rng.random(found["sentence_mask"].shape)
        drop_sentences(found, draws, rate, tokens.padding)
        trim(found)
        remaining = []
        for text, chances in zip(TEXTS, draws, strict=True):
            sentences = split_sentences(text)
            best = max(chances[: len(sentences)], default=0)
            kept = [s for s, chance in zip(sentences, chances, strict=False) if chance >= rate or chance == best]
            remaining.append(" ".join(kept))
        expected = tokenize_reports(remaining, tokenizer, 100, 10).padded(np.arange(5))
        for name in expected.keys() - {"report_text", "report_sentences"}:
            assert found[name].tolist() == expected[name].tolist(), name
        whole = tokens.padded(np.arange(5))["report_sentences"]
        assert found["report_sentences"].tolist() == whole.tolist()  # of the whole reports still
        assert found["report_text"].tolist() == tokens.report_text.tolist()


def test_pitfall_speed_each_distinct_sentence_is_tokenized_once(tokenizer):
    seen = []

    class Counting:
        cls_token_id, sep_token_id, pad_token_id = 2, 3, 0

        def __call__(self, sentences, **options):
            seen.extend(sentences)
            return tokenizer(sentences, **options)

    tokenize_reports(TEXTS * 5, Counting(), 100, 10)
    assert sorted(seen) == sorted({s for text in TEXTS for s in split_sentences(text)})


@pytest.mark.parametrize(
    ("texts", "share", "warned"),
    [
        (["The heart is enlarged.", "No effusion."], 0, False),
        (["心脏正常。", "肺野清晰。"], 1, True),  # letters that were never seen
        (["The heart is enlarged. " * 20, "心。"], 2 / 102, True),  # few of all, but all of one report
        (["The heart is enlarged. " * 20 + "心."], 1 / 102, False),
        (["The heart is enlarged. " * 3 + "心."], 1 / 17, True),
        (["THE HEART IS ENLARGED.", "NO EFFUSION."], 0, False),
    ],
)
def test_unknown_word_pieces_are_counted_and_warned_of(texts, share, warned, tokenizer, caplog):
    """A sentence about the heart has five word pieces, a Chinese letter or stop is one."""
    tokens = tokenize_reports(texts, tokenizer, 1000, 100)
    assert tokens.unknown == pytest.approx(share)
    assert ("unknown to the tokenizer" in caplog.text) == warned


def test_accents_as_one_character_or_two_are_the_same_word_pieces():
    own = train_tokenizer(["Größe normal.", "Opacité à droite."] * 2, 200)
    one, two = "Größe normal. Opacité à droite.", "Gro\u0308ße normal. Opacite\u0301 a\u0300 droite."
    given = [tokenize_reports([text], own, 100, 10) for text in (one, two)]
    np.testing.assert_array_equal(given[0].token_ids, given[1].token_ids)
    assert given[1].unknown == 0
