"""``rdx encode-concepts``: from captions to concepts."""

from rdxcli.concepts.word_options import EncodeOptions

from .options import Session, command


@command(
    "encode-concepts",
    examples=[
        "rdx encode-concepts --captions captions.json",
        "rdx encode-concepts --captions lines.txt --min-count 5 --max-threshold 0.05",
        "rdx caption --dataset images:photos -q | rdx encode-concepts --captions -",
    ],
    without=("device",),
    options=EncodeOptions,
)
def encode_concepts(session: Session, options: EncodeOptions) -> None:
    """Find the concepts in captions, choose a vocabulary, and encode every image over it."""
    from rdxcli.services.encode_concepts import EncodeAnalysis

    session.answer("encode concepts", EncodeAnalysis(options))
