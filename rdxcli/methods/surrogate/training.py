"""Training of the concept surrogate by distillation of a vision-language model's similarity matrix.

Symbols: N images with concept encodings c_i; teacher embeddings of images (N, d) and captions; B batch size; tau_s and
tau_t temperatures; z_i = W c_i + b. One step takes B images with one caption each and moves W, b so that the softmax of
cos(z_i, caption_j) / tau_s approaches that of cos(image_i, caption_j) / tau_t over the batch, in both directions.

Every random choice (split, initial weights, order of an epoch, captions and noise of a step) has a stream of its own,
named by epoch and step. A run that was killed and resumed therefore takes the same steps as one that was not; only the
parameters, the optimiser's and the loss's state and the position have to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdxcli.progress import human_count

from .encoding import Encodings
from .loop import Callback, Loop
from .losses import LOSSES, PUBLISHED_NAMES, make_loss
from .model import Surrogate
from .trainer_data import CodeBatches, Teacher, check_embeddings, digest, split_rows

OPTIMIZERS = ("AdamW", "Adam", "SGD", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adamax")
PRECISIONS = {"float32": None, "float64": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
MLP_NOTE = "the surrogate has a hidden layer; concept scores describe its affine part only and do not sum to its output"
_FORMAT = 2


def make_optimizer(
    name: str, parameters: Any, *, lr: float, weight_decay: float, amsgrad: bool
) -> torch.optim.Optimizer:
    """A PyTorch optimiser by class name; ``amsgrad`` goes to the ones that have it.

    Raises `ValueError` for a name outside `OPTIMIZERS`.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Got optimizer {name!r}, expected one of {', '.join(OPTIMIZERS)}")
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    parameters = list(parameters)
    if name in {"AdamW", "Adam"}:
        # One kernel for the whole update: measured two to four times as fast on the CPU.
        options |= {"amsgrad": amsgrad, "fused": all(p.device.type in {"cpu", "cuda"} for p in parameters)}
    return getattr(torch.optim, name)(parameters, **options)


class SurrogateTrainer:
    """Fits a concept surrogate.

    Parameters
    ----------
    loss : str
        ``symmetric-moving-kl`` (published default), ``moving-kl``, ``symmetric-kl``, ``kl``, or a published class name.
    gamma1, gamma2 : float
        Weights of the new value in the running estimates of teacher and student (published 0.9).
    temp_student, temp_teacher : float
        Temperatures (published 0.1).
    first_visit : {"sample", "batch"}
        See `MovingAverage`; ``batch`` is the published rule.
    optimizer : str
        PyTorch class name (published ``AdamW``).
    learning_rate : float
        Before scaling (published 2.5e-3).
    scale_learning_rate : bool
        Multiply by ``temp_student * batch size / 256`` (published).
    weight_decay : float
        Published 1e-6.
    amsgrad : bool
        Published True; Adam and AdamW only.
    batch_size : int
        Published 1024; cut to the number of training images when there are fewer.
    epochs : int
        Most epochs (published 150).
    drop_last : bool
        Leave out an incomplete last batch of an epoch (published True).
    noise_mass : float
        Confidence mass of the encoding noise (published 0.8); 0 switches it off.
    legacy_reduced : bool
        Draw the noise from reduced fractions, as published, instead of true counts.
    validation : float
        Share of images that choose the best epoch. 0 validates on the training images, as published; the numbers then
        say how well the surrogate describes these images, not how it does on others.
    test : float or None
        Share of images that neither train nor choose: the scores to quote. None takes as many as ``validation``.
    validate_every : int
        Epochs between validations.
    patience : int or None
        Stop after this many validations without a better one; None never stops early.
    monitor : {"kl", "agreement"}
        What "better" means: lower KL, or higher agreement of the best class (the best caption without classes).
    use_key_encoder : bool
        Also learn an affine map of the texts (published option).
    mlp_dim : int or None
        Hidden layer of the published MLP variant. Concept scores do not describe it; see ``notes_``.
    precision : {"float32", "bfloat16", "float16", "float64"}
        Of the similarity products; parameters and losses are float32 except with float64.

    Attributes
    ----------
    surrogate_ : Surrogate
        The best validated weights, on the CPU.
    history_ : list of dict
        One row per epoch: ``epoch, step, loss, kl, accuracy, ...`` (means over the epoch's batches) and ``val_*``.
    scores_ : dict
        ``train``, ``validation`` and ``test``: see `validation.compare`.
    batch_size_, learning_rate_ : int, float
        As used.
    resumed_at_ : (int, int) or None
        Epoch and step at which a checkpoint was taken up.

    References
    ----------
    "Advancing Interpretability of CLIP Representations with Concept Surrogate Model", NeurIPS 2025.

    Notes
    -----
    A step costs O(nnz D + B^2 D); memory is O(C D + B^2) beside the embeddings, which may be memory-mapped.
    """

    def __init__(
        self,
        *,
        loss: str = "symmetric-moving-kl",
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        temp_student: float = 0.1,
        temp_teacher: float = 0.1,
        first_visit: str = "sample",
        optimizer: str = "AdamW",
        learning_rate: float = 2.5e-3,
        scale_learning_rate: bool = True,
        weight_decay: float = 1e-6,
        amsgrad: bool = True,
        batch_size: int = 1024,
        epochs: int = 150,
        drop_last: bool = True,
        noise_mass: float = 0.8,
        legacy_reduced: bool = False,
        validation: float = 0.1,
        test: float | None = None,
        validate_every: int = 1,
        patience: int | None = 20,
        monitor: str = "kl",
        use_key_encoder: bool = False,
        mlp_dim: int | None = None,
        precision: str = "float32",
        device: str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.loss, self.gamma1, self.gamma2 = loss, gamma1, gamma2
        self.temp_student, self.temp_teacher, self.first_visit = temp_student, temp_teacher, first_visit
        self.optimizer, self.learning_rate, self.scale_learning_rate = optimizer, learning_rate, scale_learning_rate
        self.weight_decay, self.amsgrad = weight_decay, amsgrad
        self.batch_size, self.epochs, self.drop_last = batch_size, epochs, drop_last
        self.noise_mass, self.legacy_reduced = noise_mass, legacy_reduced
        self.validation, self.test, self.validate_every = validation, test, validate_every
        self.patience, self.monitor = patience, monitor
        self.use_key_encoder, self.mlp_dim = use_key_encoder, mlp_dim
        self.precision, self.device, self.random_state = precision, device, random_state

    def get_params(self) -> dict[str, Any]:
        """All hyper-parameters, for provenance."""
        return {
            name: value for name, value in vars(self).items() if not name.startswith("_") and not name.endswith("_")
        }

    def check(self) -> None:
        """Refuse impossible hyper-parameters, which `fit` does too. Raises `ValueError`."""
        if PUBLISHED_NAMES.get(self.loss, self.loss) not in LOSSES:
            raise ValueError(f"Got loss {self.loss!r}, expected one of {', '.join(LOSSES)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"Got optimizer {self.optimizer!r}, expected one of {', '.join(OPTIMIZERS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"Got precision {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if self.monitor not in {"kl", "agreement"}:
            raise ValueError(f"Got monitor {self.monitor!r}, expected `kl` or `agreement`")
        positive = {"batch_size": self.batch_size, "epochs": self.epochs, "validate_every": self.validate_every}
        positive["patience"] = 1 if self.patience is None else self.patience
        for name, number in positive.items():
            if number < 1:
                raise ValueError(f"Got {name}={number}, expected at least 1")
        if self.batch_size < 2:
            raise ValueError(f"Got batch_size={self.batch_size}, expected at least 2 images to compare")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ValueError(
                f"Got learning_rate={self.learning_rate}, weight_decay={self.weight_decay}, expected > 0, >= 0"
            )

    def fit(
        self,
        encodings: Encodings,
        image_embeddings: Any,
        text_embeddings: Any,
        *,
        text_offsets: Any = None,
        class_embeddings: Any = None,
        sample_ids: Sequence[str] | None = None,
        initial: Mapping[str, Any] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_seconds: float = 60.0,
        callback: Callback | None = None,
    ) -> SurrogateTrainer:
        """Train, or take up an interrupted training.

        Raises `ValueError` for unusable inputs or parameters, a checkpoint of another run, or a loss that is no longer
        finite.

        Parameters
        ----------
        image_embeddings : array (n, d)
            Teacher; not normalised. May be memory-mapped.
        text_embeddings : array (t, e)
            Teacher embeddings of the captions, an image's captions together.
        text_offsets : array (n + 1,), optional
            Where each image's captions begin and end; without it one caption per image.
        class_embeddings : array (J, e), optional
            Text embeddings of classes, for the agreement of zero-shot predictions.
        sample_ids : sequence of str, optional
            Ids of the rows of ``image_embeddings``: the encodings are put into that order. Without it the rows must
            already match.
        initial : mapping, optional
            Start from these weights (see `Surrogate.published_state`).
        checkpoint : path, optional
            Folder of the run's checkpoint. When it holds one of the same run, that run goes on.
        checkpoint_seconds : float
            Least time between two checkpoints; 0 writes one after every step.
        callback : callable, optional
            Called with every row of ``history_``, from the first one on also when a run is taken up.
        """
        self.check()
        aligned = encodings if sample_ids is None else encodings.align([str(name) for name in sample_ids])
        teacher = Teacher(image_embeddings, text_embeddings, text_offsets)
        if teacher.n != len(aligned.ids):
            raise ValueError(
                f"Got {human_count(len(aligned.ids), 'encoding')} and "
                f"{human_count(teacher.n, 'image embedding')}, expected as many"
            )
        if class_embeddings is not None:
            check_embeddings(class_embeddings, "class embeddings")
            if np.shape(class_embeddings)[1] != teacher.dim:
                raise ValueError(
                    f"Got class embeddings of shape {np.shape(class_embeddings)}, expected (J, {teacher.dim})"
                )
        loop = self._loop(aligned, teacher, class_embeddings, initial)
        loop.folder, loop.seconds = checkpoint, checkpoint_seconds
        self.resumed_at_ = loop.resume()
        loop.run(callback)
        loop.take_best()
        self.history_, self.best_epoch_ = loop.position.history, int(loop.position.best_epoch or 0)
        chosen = loop.compare(self.split_.validation)
        untouched = self.split_.test is not self.split_.validation
        scores = loop.compare(self.split_.test) if untouched else chosen
        self.scores_ = {
            "train": loop.compare(self.split_.train) if self.split_.held_out else chosen,
            "validation": chosen,
            "test": scores,
        }
        self.surrogate_ = loop.model.cpu()
        if scores["kl"] >= scores["uniform_kl"]:
            self.notes_.append(
                f"the surrogate explains nothing: KL {scores['kl']:.3f}, a constant gives {scores['uniform_kl']:.3f}"
            )
        fitted = self.scores_["train"]
        if self.split_.held_out and fitted["kl"] >= fitted["uniform_kl"]:
            self.notes_.append(
                f"the training images themselves are not learnt: KL {fitted['kl']:.3f}, a constant gives "
                f"{fitted['uniform_kl']:.3f}; more epochs, or a larger learning rate (it was {self.learning_rate_:.2g} "
                "after scaling with temperature and batch size)"
            )
        return self

    def _loop(self, encodings: Encodings, teacher: Teacher, classes: Any, initial: Mapping[str, Any] | None) -> Loop:
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        self.notes_: list[str] = []
        self.split_ = split_rows(teacher.n, self.validation, self.random_state, self.test)
        n_train = len(self.split_.train)
        self.batch_size_ = min(self.batch_size, n_train)
        if self.batch_size_ < self.batch_size:
            self.notes_.append(
                f"batches hold all {human_count(n_train, 'training image')}, fewer than batch_size={self.batch_size}"
            )
        steps = n_train // self.batch_size_ + (not self.drop_last and n_train % self.batch_size_ >= 2)
        scale = self.temp_student * self.batch_size_ / 256 if self.scale_learning_rate else 1.0
        self.learning_rate_ = self.learning_rate * scale
        model = self._model(len(encodings.concepts), teacher.dim, dtype, initial).to(self.device)
        batches = CodeBatches(encodings, self.noise_mass, self.legacy_reduced, self.random_state, dtype, self.device)
        if not self.split_.held_out:
            self.notes_.append("validated on the training images: the scores do not say how it does on other images")
        elif self.test == 0:
            self.notes_.append("test=0: the scores are of the images that chose the epoch, and flatter")
        if model.mlp_dim is not None:
            self.notes_.append(MLP_NOTE)
        if empty := int((~encodings.has_concepts).sum()):
            self.notes_.append(
                f"{empty} of {human_count(teacher.n, 'image')} have no concepts; the surrogate gives all of them one z"
            )
        if self.noise_mass > 0 and not batches.noisy:
            self.notes_.append("no training noise: the encodings come without caption counts")
        loss = make_loss(
            self.loss,
            teacher.n,
            gamma1=self.gamma1,
            gamma2=self.gamma2,
            temp_student=self.temp_student,
            temp_teacher=self.temp_teacher,
            first_visit=self.first_visit,
            device=self.device,
        )
        optimizer = make_optimizer(
            self.optimizer,
            model.parameters(),
            lr=self.learning_rate_,
            weight_decay=self.weight_decay,
            amsgrad=self.amsgrad,
        )
        return Loop(
            model=model,
            loss=loss,
            optimizer=optimizer,
            batches=batches,
            teacher=teacher,
            split=self.split_,
            classes=classes,
            batch_size=self.batch_size_,
            steps=int(steps),
            epochs=self.epochs,
            validate_every=self.validate_every,
            patience=self.patience,
            monitor=self.monitor,
            autocast=PRECISIONS[self.precision],
            seed=self.random_state,
            identity=self._identity(encodings, teacher, classes, initial),
        )

    def _model(self, concepts: int, dim: int, dtype: torch.dtype, initial: Mapping[str, Any] | None) -> Surrogate:
        if initial is None:
            return Surrogate(
                concepts,
                dim,
                use_key_encoder=self.use_key_encoder,
                mlp_dim=self.mlp_dim,
                temperature=self.temp_student,
                random_state=self.random_state,
                dtype=dtype,
            )
        model = Surrogate.from_published_state(initial, temperature=self.temp_student).to(dtype)
        if (model.num_concepts, model.dim) != (concepts, dim):
            raise ValueError(
                f"Got initial weights for {human_count(model.num_concepts, 'concept')} and "
                f"{human_count(model.dim, 'dimension')}, "
                f"expected {concepts} and {dim}"
            )
        return model

    def _identity(self, encodings: Encodings, teacher: Teacher, classes: Any, initial: Any) -> dict[str, Any]:
        """What two runs must share for one to be the continuation of the other."""
        arrays = encodings.arrays()
        return {
            "format": _FORMAT,
            "parameters": self.get_params(),
            "concepts": digest(np.array([str(concept) for concept in encodings.concepts])),
            "samples": digest(np.array([str(name) for name in encodings.ids])),
            "encodings": digest(*(arrays[key] for key in sorted(arrays)), encodings.shares),
            "teacher": teacher.digest,
            "classes": None if classes is None else digest(classes),
            "initial": None if initial is None else digest(*(np.asarray(initial[key]) for key in sorted(initial))),
        }
