"""Real captions: a vocabulary, and a surrogate of real CLIP text embeddings beside a control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.surrogate import lvis_trial

from rdxcli.methods.surrogate.attribution import contrast_scores, image_scores, text_scores
from rdxcli.methods.surrogate.curves import cosine_to, removal_curves
from rdxcli.methods.surrogate.evaluation import predict
from rdxcli.methods.surrogate.extraction import Concept, load_extractor
from rdxcli.methods.surrogate.training import SurrogateTrainer
from rdxcli.methods.surrogate.vocabulary import count_concepts, fit_vocabulary

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_fifteen_thousand_captions_become_a_vocabulary(shared: Path) -> None:
    lines = (shared / "data/text/conceptual_captions_val.txt").read_text("utf-8").splitlines()[:15_000]
    counts = count_concepts({str(i): [line] for i, line in enumerate(lines)}, load_extractor("packaged"))
    vocabulary = fit_vocabulary(counts)
    assert 3000 < len(vocabulary) < 5000
    found = dict(zip(vocabulary.concepts, vocabulary.image_counts.tolist(), strict=True))
    for concept, least in ((("woman", "n"), 400), (("walk", "v"), 150), (("red", "a"), 150), (("dog", "n"), 150)):
        assert found[Concept(*concept)] >= least
    # Plural and singular are one concept; words of grammar are none.
    assert not {Concept("dogs", "n"), Concept("women", "n"), Concept("the", "n")} & set(counts.concepts)


@pytest.mark.slow
def test_a_surrogate_of_real_text_embeddings(shared: Path) -> None:
    trial = lvis_trial.build(shared)
    assert len(trial.images) > 1000
    trained = {}
    for variant, epochs in (("words", 25), ("context", 12), ("shuffled", 6)):
        trainer = SurrogateTrainer(batch_size=256, epochs=epochs, learning_rate=0.05, validation=0.2, patience=10)
        trained[variant] = trainer.fit(trial.encodings(variant), **lvis_trial.fit_arguments(trial))
    held_out = {variant: one.scores_["validation"] for variant, one in trained.items()}
    assert held_out["words"]["agreement"] > 0.7
    assert held_out["words"]["kl"] < 0.5 * held_out["words"]["uniform_kl"]
    # Sentences tell objects without naming them, better than chance and worse than with the names.
    assert trial.majority < held_out["context"]["agreement"] < held_out["words"]["agreement"]
    # Nothing can be learnt from other scenes' captions, and the trainer says so.
    assert held_out["shuffled"]["agreement"] < 1.5 * trial.majority
    assert any("explains nothing" in note for note in trained["shuffled"].notes_)
    assert not any("explains nothing" in note for note in trained["words"].notes_)

    best = trained["words"]
    encodings = trial.encodings("words").take(best.split_.validation)
    images = trial.images[best.split_.validation]
    scores = image_scores(best.surrogate_, encodings)
    np.testing.assert_allclose(scores.csr().sum(axis=1)[scores.has_concepts], 1.0, atol=1e-6)
    classes = predict(images, trial.classes)
    own = text_scores(best.surrogate_, encodings, trial.classes[classes])
    # The word that names the object is what makes the class, in most scenes where it is one word of the vocabulary.
    column = {concept.lemma: j for j, concept in enumerate(encodings.concepts) if concept.pos == "n"}
    named = [(i, column[trial.names[y]]) for i, y in enumerate(classes) if trial.names[y] in column]
    present = [(i, j) for i, j in named if j in encodings.indices[encodings.indptr[i] : encodings.indptr[i + 1]]]
    tops = own.top(1)
    assert len(present) > 50
    assert np.mean([tops[i][0][0] == j for i, j in present]) > 0.8
    other = contrast_scores(best.surrogate_, encodings, trial.classes[0], trial.classes[1])
    np.testing.assert_allclose(other.csr().sum(axis=1) + other.bias, other.total, atol=1e-9)
    curves = removal_curves(
        encodings.csr(),
        own.scores,
        best.surrogate_.table.detach().numpy(),
        cosine_to(trial.classes[classes]),
        base=best.surrogate_.bias.detach().numpy(),
    )
    assert curves.areas()["deletion_gain"] > 0
    assert curves.areas()["insertion_gain"] > 0
