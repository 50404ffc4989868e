"""``rdx train-surrogate``: a concept surrogate of a vision-language embedding."""

from rdxcli.concepts.word_options import TrainOptions

from .options import Session, command


@command(
    "train-surrogate",
    examples=[
        "rdx train-surrogate --encodings enc.npz --image-embeddings i.npy --text-embeddings t.npy",
        "rdx train-surrogate --config configs/surrogate-coco.yaml --epochs 50",
        "rdx encode-concepts --captions c.json -q | "
        "rdx train-surrogate --encodings - --dataset images:photos --teacher clip_vit_b_32",
    ],
    options=TrainOptions,
)
def train_surrogate(session: Session, options: TrainOptions) -> None:
    """Train a map from concepts to the embedding, so that every image's embedding is explained in words.

    An interrupted training continues with the same command and ends with the same weights.
    """
    from rdxcli.services.train_surrogate import TrainAnalysis

    session.answer("train a surrogate", TrainAnalysis(options))
