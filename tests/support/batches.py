"""Whether the parts of a batch belong together."""

from cmcgns.data.pairs.batch import Batch


def checked(batch: Batch) -> Batch:
    """The same batch, whose shapes fit together."""
    studies, length = batch.token_ids.shape
    sentences, (height, width) = batch.sentence_mask.shape[1], batch.images.shape[2:]
    expected = {
        "images": (studies, 1, height, width),
        "token_mask": (studies, length),
        "token_sentence": (studies, length),
        "sentence_mask": (studies, sentences),
        "sentence_text": (studies, sentences),
        "report_text": (studies,),
        "report_sentences": (studies, batch.report_sentences.shape[-1]),
    }
    if batch.fine_images is not None:
        expected["fine_images"] = (studies, 1, 2 * height, 2 * width)
    assert {name: tuple(getattr(batch, name).shape) for name in expected} == expected
    return batch
