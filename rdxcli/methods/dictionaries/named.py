"""A sparse autoencoder of image embeddings whose latents are called by concept words: a baseline for word explainers.

Symbols: x (n, D) unit image embeddings, mu (D,) their mean over the training images; d_i (D,) unit decoder row of
latent i, of I; a (n, I) >= 0 activations, few of an image; t_c (D,) text embedding of concept c, of C, unit, minus the
mean of all, unit again. An image is n(n(a d) + mu), n the unit vector, as SpLiCE has it, so that both are judged alike.

A latent is called by the concept whose t_c is nearest to its d_i (Rao et al., "Discover-then-Name", ECCV 2024), and,
where scores of the concepts on the training images are given, by the concept whose scores follow its activation most.
Either name stands beside what chance gives: the nearest concept of random directions of the images' covariance, and the
best correlation with the images in another order.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from scipy.sparse import csr_array

from rdxcli.methods.directions.labelling import label_by_words
from rdxcli.methods.estimator import Estimator
from rdxcli.methods.surrogate.splice import SpLiCE, unit
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Count
from rdxcli.progress import human_count

from .sae import SparseAutoencoder

_DRAWS = 199
_BLOCK = 4096


class NamedDictionary(Estimator):
    """Image embeddings as sums of few learned latents with names.

    Offers what `SpLiCE` does (``transform``, ``reconstruct``, ``finish``, ``dictionary_``), with latents in place of
    words: ``splice_student(model, model.transform(images))`` puts it on the scoreboard of explainers, and
    ``names_`` are the words of its columns.

    Parameters
    ----------
    n_latents : int, optional
        I; default twice the dimensions, at most a tenth of the training images and 1,024.
    k : int
        Active latents per image, on average.
    steps, batch : int
        As those of `SparseAutoencoder`.
    by : str
        What ``names_`` goes by: "direction" (nearest text embedding) or "scores" (correlation on the training images).
    random_state : int
        Seed.

    Attributes
    ----------
    dictionary_ : ndarray (I, D) float64
        Unit decoder rows.
    image_mean_ : ndarray (D,) float64
        mu.
    names_ : list of str
        One a latent; several may be called alike.
    similarity_, p_value_ : ndarray (I,)
        Of the name that ``by`` chose: cosine or correlation, and the share of chance draws that reach it.
    named_by_ : dict of str to (list of str, ndarray, ndarray)
        Names, similarities and p-values by "direction", and by "scores" where these were given.
    quality_ : dict
        ``explained_variance``, ``l0``, ``dead`` on the training images.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> words = rng.standard_normal((6, 16))
    >>> images = (rng.random((300, 6)) < 0.3) @ words + 0.1 * rng.standard_normal((300, 16))
    >>> model = NamedDictionary(12, k=2, steps=200).fit(images, words, list("abcdef"))
    >>> weights = model.transform(images)
    >>> weights.shape, model.reconstruct(weights).shape
    ((300, 12), (300, 16))
    """

    def __init__(
        self,
        n_latents: Count | None = None,
        *,
        k: Count = 8,
        steps: Count = 2000,
        batch: Count = 512,
        by: Literal["direction", "scores"] = "direction",
        random_state: int = 0,
    ) -> None:
        self.n_latents = n_latents
        self.k = k
        self.steps = steps
        self.batch = batch
        self.by = by
        self.random_state = random_state

    def fit(self, images: Any, concept_embeddings: Any, concepts: list[str], scores: Any = None) -> Self:
        """Learn the latents and name them.

        Raises `ValueError` (NaN, shapes that do not fit, fewer than 20 images).

        Parameters
        ----------
        images : array (n, D)
            Embeddings of the training images; of no image that is judged later.
        concept_embeddings : array (C, D)
            Text embeddings of the concepts, of the same model.
        concepts : list of str
            Their C names.
        scores : array (n, C), optional
            How much each concept is in each training image, for example image-text scores or what captions say.
        """
        x = np.asarray(images, np.float64)
        if x.ndim != 2 or len(x) < 20 or not np.isfinite(x).all():
            raise ValueError(f"Got images of shape {x.shape} or not finite, expected a finite matrix of at least 20")
        if self.by not in ("direction", "scores") or (self.by == "scores" and scores is None):
            raise ValueError(f"Got by={self.by!r}, expected `direction`, or `scores` together with scores")
        if scores is not None and np.shape(scores) != (len(x), len(concepts)):
            raise ValueError(f"Got scores of shape {np.shape(scores)}, expected ({len(x)}, {len(concepts)})")
        texts = SpLiCE().fit(concept_embeddings, np.zeros(x.shape[1])).dictionary_
        if len(texts) != len(concepts):
            raise ValueError(
                f"Got {human_count(len(concepts), 'concept')} for "
                f"{human_count(len(texts), 'text embedding')}, expected as many"
            )
        x = unit(x)
        self.image_mean_ = x.mean(axis=0)
        v = unit(x - self.image_mean_)
        count = self.n_latents or max(self.k + 1, min(2 * x.shape[1], len(x) // 10, 1024))
        self._latents = SparseAutoencoder(
            count, k=self.k, steps=self.steps, batch=min(self.batch, len(x)), random_state=self.random_state
        ).fit(v.astype(np.float32))
        self.quality_ = self._latents.quality_
        self.dictionary_ = self._latents.encoding_
        self.named_by_ = {"direction": self._nearest(texts, list(concepts), v)}
        if scores is not None:
            found = label_by_words(self.transform(images).toarray(), scores, top=1, random_state=self.random_state)
            best = found.best[:, 0]
            likeness = found.correlation[np.arange(count), best]
            self.named_by_["scores"] = ([concepts[j] for j in best], likeness, found.p_value)
        self.names_, self.similarity_, self.p_value_ = self.named_by_[self.by]
        return self

    def _nearest(self, texts: np.ndarray, concepts: list[str], v: np.ndarray) -> tuple[list[str], Any, Any]:
        """Nearest concept of each decoder row, its cosine, and the share of random directions that come as near."""
        cosine = self.dictionary_ @ texts.T
        best = cosine.argmax(axis=1)
        likeness = cosine[np.arange(len(best)), best]
        drawn = generator(self.random_state, "named", "chance").standard_normal((_DRAWS, len(v)))
        chance = (unit(drawn @ (v - v.mean(axis=0))) @ texts.T).max(axis=1)
        p = (1 + (chance >= likeness[:, None]).sum(axis=1)) / (1 + _DRAWS)
        return [concepts[j] for j in best], likeness, p

    def transform(self, images: Any) -> csr_array:
        """Activations of the latents along their unit decoder rows: CSR (n, I) float64, positive where stored.

        Parameters
        ----------
        images : array (n, D)
        """
        x = np.asarray(images, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.image_mean_) or not np.isfinite(x).all():
            raise ValueError(f"Got images {x.shape} or not finite, expected (n, {len(self.image_mean_)})")
        v = unit(unit(x) - self.image_mean_)
        blocks = [self._latents.activations(v[start : start + _BLOCK]) for start in range(0, len(v), _BLOCK)]
        return csr_array(np.concatenate(blocks).astype(np.float64))

    def reconstruct(self, weights: Any) -> np.ndarray:
        """Unit embeddings (n, D) that activations (n, I) stand for."""
        return self.finish(np.asarray(weights @ self.dictionary_))

    def finish(self, combined: np.ndarray) -> np.ndarray:
        """n(n(a d + m) + mu) of given sums a d (..., D); m is the mean from which the autoencoder counts."""
        return unit(unit(combined + self._latents.mean_) + self.image_mean_)
