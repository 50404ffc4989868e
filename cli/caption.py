"""``rdx caption``: sentences about the images of a data set."""

from rdxcli.concepts.word_options import CaptionOptions
from rdxcli.progress import human_count

from .options import SAMPLES_FAILED, Session, command


@command(
    "caption",
    examples=[
        "rdx caption --dataset images:photos --captions-per-image 5",
        "rdx caption --dataset coco --split val --model human",
        "rdx caption --dataset imagenet --from captions.json",
        "rdx caption --dataset images:photos --model openai:Qwen3-VL-4B --base-url http://localhost:8000/v1",
    ],
    options=CaptionOptions,
)
def caption(session: Session, options: CaptionOptions) -> None:
    """Describe every image in sentences: by a model, by the people who made the data set, or from a file.

    An interrupted run continues where it stopped. A caption depends on the image and the seed, not on the batch.
    """
    from rdxcli.services.caption import CaptionAnalysis

    found = session.answer("caption images", CaptionAnalysis(options))
    if found is not None and (failed := found["failed"]):
        session.sink.warning(
            f"{human_count(len(failed), 'image')} failed; samples.parquet lists them with their errors"
        )
        for entry in failed[:10]:
            session.sink.warning(f"{entry['sample_id']}: {entry['error']}")
        session.exit(SAMPLES_FAILED)
