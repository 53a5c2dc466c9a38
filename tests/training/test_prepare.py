"""From a table to the data sets of a run: what is used, what is left out, and that it is said."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.data import describe_batches, prepare_data, summary, write_left_out
from support.batches import checked

REPORTS = ["Large heart. No effusion.", "Normal.", "", "Clear lungs. Old fracture. Normal.", "Normal.", "Edema."]


@pytest.fixture
def folder(tmp_path):
    """Six studies of six patients; the third has no report."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(6):
        Image.fromarray(np.full((40, 40), 40 * number, dtype=np.uint8)).save(data / f"{number}.png")
    table = {"image_path": [f"{number}.png" for number in range(6)], "report": REPORTS}
    pd.DataFrame(table | {"study_id": [f"s{number}" for number in range(6)]}).to_csv(data / "pairs.csv", index=False)
    return data


def settings(*overrides):
    tiny = ["data.image_size=16", "data.resize=16", "data.val_fraction=0.2", "report_encoder.vocabulary=80"]
    return load_recipe("demo", [*tiny, *overrides])


def everything(dataset):
    return dataset[BatchRequest(np.arange(len(dataset)))]


def studies(prepared):
    return sorted([*everything(prepared.train).study_ids, *everything(prepared.validation).study_ids])


def test_every_usable_row_is_in_one_of_the_two_sets(folder, caplog):
    prepared = prepare_data(settings(), folder)
    assert (len(prepared.train), len(prepared.validation)) == (3, 2)
    assert studies(prepared) == ["s0", "s1", "s3", "s4", "s5"]
    assert "1 rows left out: empty report (rows 3" in caplog.text


def test_reports_that_are_all_equal_are_refused(folder):
    table = pd.read_csv(folder / "pairs.csv", dtype=str)
    table.assign(report="Normal. Clear lungs.").to_csv(folder / "pairs.csv", index=False)
    with pytest.raises(UserError, match=r"pairs\.csv: all \d training reports are equal, so nothing"):
        prepare_data(settings(), folder)


def test_image_and_report_of_a_row_stay_together(folder):
    (folder / "1.png").write_bytes(b"")
    prepared = prepare_data(settings("data.bad_images=leave_out"), folder)
    assert studies(prepared) == ["s0", "s3", "s4", "s5"]
    for dataset in (prepared.train, prepared.validation):
        batch = everything(dataset)
        for place, name in enumerate(batch.study_ids):
            number = int(name[1:])
            assert batch.images[place].unique().item() == pytest.approx(40 * number / 127.5 - 1, abs=1e-6)
            words = prepared.tokenizer.decode(batch.token_ids[place][batch.token_sentence[place] >= 0])
            assert words.replace(" .", ".") == REPORTS[number].lower()


def test_unreadable_images_stop_with_all_of_them_or_are_left_out(folder, tmp_path, caplog):
    for number in (0, 4):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)2 images cannot be read:.*row 1: .*0\.png.*row 5: .*4\.png.*leave_out"):
        prepare_data(settings(), folder)
    prepared = prepare_data(settings("data.bad_images=leave_out"), folder)
    assert studies(prepared) == ["s1", "s3", "s5"]
    assert "2 rows left out: unreadable image (rows 1, 5" in caplog.text
    write_left_out(prepared.pairs, tmp_path / "left_out.csv")
    written = pd.read_csv(tmp_path / "left_out.csv")
    assert list(zip(written["row"], written["reason"], strict=True)) == [
        (3, "empty report"),
        (1, "unreadable image"),
        (5, "unreadable image"),
    ]


def test_rows_of_other_splits_are_not_looked_at(folder, caplog):
    """A missing image of the test set is no reason to stop, nor do its reports count."""
    alone = summary(prepare_data(settings("data.val_split=null"), folder))
    table = pd.read_csv(folder / "pairs.csv", dtype=str).assign(split="train")
    more = table.assign(split="test", image_path="gone.png", study_id="t" + table["study_id"], report="Other. Words.")
    more["image_path"] = [f"gone-{number}.png" for number in range(6)]
    pd.concat([table, more]).to_csv(folder / "pairs.csv", index=False)
    with caplog.at_level(logging.INFO):
        assert summary(prepare_data(settings("data.val_split=null"), folder)) == alone
    assert "6 rows of split test are not used" in caplog.text
    with pytest.raises(UserError, match=r"no row has split pretraining \(found: test, train\)"):
        prepare_data(settings("data.train_split=pretraining"), folder)


def test_images_stay_on_disk_where_some_are_left_out(folder):
    (folder / "1.png").write_bytes(b"")
    images = prepare_data(settings("data.bad_images=leave_out"), folder).train.images
    assert isinstance(images.pixels, np.memmap)
    assert images.shape == (4, 16, 16)
    np.testing.assert_array_equal(images[np.array([3, 0])], images.pixels[[4, 0]])


def test_a_list_of_nothing_left_out_has_its_header(folder, tmp_path):
    table = pd.read_csv(folder / "pairs.csv").dropna()
    table.to_csv(folder / "pairs.csv", index=False)
    prepared = prepare_data(settings(), folder)
    write_left_out(prepared.pairs, tmp_path / "left_out.csv")
    assert (tmp_path / "left_out.csv").read_text().strip() == "row,image_path,reason"


def test_no_readable_image(folder):
    for number in range(6):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError):
        prepare_data(settings("data.bad_images=leave_out"), folder)


def test_summary_counts(folder):
    facts = summary(prepare_data(settings(), folder))
    assert (facts["train"], facts["validation"], facts["left_out"]) == (3, 2, {"empty report": 1})
    assert (facts["sentences"], facts["distinct_sentences"]) == (8, 6)
    json.dumps(facts)
    table = pd.read_csv(folder / "pairs.csv").dropna()
    table.to_csv(folder / "pairs.csv", index=False)
    assert summary(prepare_data(settings(), folder))["left_out"] == {}


def test_long_reports_are_cut_and_counted(folder, caplog):
    with caplog.at_level(logging.WARNING):
        prepared = prepare_data(settings("data.max_sentences=2", "data.max_tokens=8"), folder)
    assert summary(prepared)["shortened_reports"]["sentences"] == 1
    assert "1 of 5 reports have more than 2 sentences: cut" in caplog.text
    batch = checked(everything(prepared.train))
    assert batch.sentence_mask.shape[1] <= 2
    assert batch.token_ids.shape[1] <= 8


def test_every_report_a_single_sentence_is_said(folder, caplog):
    table = pd.read_csv(folder / "pairs.csv")
    table.assign(report=[f"Normal {n}." for n in range(len(table))]).to_csv(folder / "pairs.csv", index=False)
    batch = checked(everything(prepare_data(settings(), folder).train))
    assert batch.sentence_mask.shape[1] == 1
    assert "every report is a single sentence" in caplog.text


def test_pitfall_evaluation_validation_text_does_not_shape_the_tokenizer(folder):
    table = pd.read_csv(folder / "pairs.csv").dropna().assign(split=["val", "train", "train", "train", "train"])
    table.loc[0, "report"] = "Qqqq qqqq."
    table.to_csv(folder / "pairs.csv", index=False)
    prepared = prepare_data(settings(), folder)
    assert not [piece for piece in prepared.tokenizer.get_vocab() if "q" in piece.removeprefix("##")]
    assert prepared.tokenizer.unk_token_id in everything(prepared.validation).token_ids


def test_preparing_again_gives_the_same(folder):
    first, second = prepare_data(settings(), folder), prepare_data(settings(), folder)
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    assert first.train.rows.tolist() == second.train.rows.tolist()
    assert first.train.tokens.token_ids.tolist() == second.train.tokens.token_ids.tolist()


def test_a_saved_tokenizer_is_used_instead_of_a_new_one(folder, tmp_path):
    prepared = prepare_data(settings(), folder)
    prepared.tokenizer.save_pretrained(str(tmp_path / "tokenizer"))
    table = pd.read_csv(folder / "pairs.csv")
    table.assign(report=[f"Entirely other words {number}." for number in range(len(table))]).to_csv(
        folder / "pairs.csv", index=False
    )
    again = prepare_data(settings(), folder, tmp_path / "tokenizer")
    assert again.tokenizer.get_vocab() == prepared.tokenizer.get_vocab()


def test_a_single_validation_study_cannot_choose_an_epoch_and_that_is_said(folder, caplog):
    prepare_data(settings(), folder)
    assert "a single validation study" not in caplog.text
    table = pd.read_csv(folder / "pairs.csv").dropna().assign(split=["val", "train", "train", "train", "train"])
    table.to_csv(folder / "pairs.csv", index=False)
    prepare_data(settings(), folder)
    assert "a single validation study: its L_global is always 0" in caplog.text


def test_batches_say_who_sits_out_and_have_more_than_one_study():
    assert describe_batches(settings("training.batch_size=4"), 8, 1) == "an epoch: 2 batches of 4"
    text = describe_batches(settings("training.batch_size=4"), 13, 2)
    assert text == "an epoch: 1 batches of 8; 5 of 13 studies sit out, others every time"
    alone = settings("training.batch_size=1")
    assert describe_batches(alone, 8, 2).startswith("an epoch: 4 batches of 2")
    with pytest.raises(UserError, match=r"training\.batch_size is 1"):
        describe_batches(alone, 8, 1)
    with pytest.raises(UserError, match=r"studies: 1; its image would have no other .* give at least 2"):
        describe_batches(settings("training.batch_size=16"), 1, 1)
    mrm = load_recipe("demo+rival-mrm", ["training.batch_size=1"])  # which tells no report from another
    assert describe_batches(mrm, 1, 1) == "an epoch: 1 batches of 1"
    with pytest.raises(UserError, match=r"near brings hard negatives .* of which objective\.name=mrm has none"):
        describe_batches(load_recipe("demo+rival-mrm", ["training.batches=near"]), 8, 1)
    published = (
        "objective.local=own_query",
        "objective.rarity=0",
        "objective.weight_matching=0",
        "objective.bank.source=cross_modal",
    )
    own_image = ("objective.weight_global=0", "objective.sentence_gradient=1", *published)  # other sentences will do
    without = settings("training.batch_size=16", *own_image)
    with pytest.raises(UserError, match=r"studies: 1, which do not fill one batch of 16: set .*batch_size=1,"):
        describe_batches(without, 1, 1)


def test_a_single_study_is_nothing_to_contrast_for_l_report_either():
    alone = settings("objective.weight_global=0", "objective.sentence_gradient=1", "training.batch_size=1")
    with pytest.raises(UserError, match=r"training\.batch_size is 1"):
        describe_batches(alone, 10, 1)


def test_fixed_shapes_are_the_bounds(folder):
    batch = checked(everything(prepare_data(settings("data.max_tokens=20"), folder, fixed_shapes=True).train))
    assert batch.token_ids.shape == (3, 20)
    assert batch.sentence_mask.shape == (3, 12)
