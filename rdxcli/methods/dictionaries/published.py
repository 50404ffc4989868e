"""Sparse autoencoders as the libraries of the field write them, brought to one form.

The form: ``a = (W (x - b_dec) + b_enc)`` where it is above ``threshold``, else 0; ``x ~ a D + b_dec``, with encoder
rows ``W`` and decoder rows ``D`` (I, D).

===================================  =================================================================================
written by                           arrays
===================================  =================================================================================
SAELens, SAEV, ViT-Prisma            ``W_enc`` (D, I), ``W_dec`` (I, D), ``b_enc``, ``b_dec``, ``threshold``;
                                     ``cfg.json`` with ``k`` and ``apply_b_dec_to_input``
EleutherAI's sparsify                ``encoder.weight`` (I, D), ``encoder.bias``, ``W_dec`` (I, D), ``b_dec``
dictionary_learning                  ``encoder.weight``, ``decoder.weight`` (D, I), ``b_dec`` or ``bias`` or
                                     ``decoder.bias``, ``threshold``, ``k``
overcomplete                         ``encoder.final_block.0`` and ``.1`` (batch norm), ``dictionary._weights``,
                                     ``thresholds`` (logarithms)
OpenAI                               ``encoder.weight``, ``decoder.weight``, ``pre_bias``, ``latent_bias``
===================================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .judging import Judgement, judge

Array = np.ndarray

_ENCODERS = ("W_enc", "encoder.weight", "encoder.final_block.0.weight")
_DECODERS = ("W_dec", "decoder.weight", "dictionary._weights", "dictionary.dictionary", "dictionary")
_ENCODER_BIASES = ("b_enc", "encoder.bias", "latent_bias", "encoder.final_block.0.bias")
_OFFSETS = ("b_dec", "decoder.bias", "bias", "pre_bias", "b_pre")
_NOT_LINEAR = ("layer_norm", "constant_norm_rescale")
_EPSILON = 1e-5  # of batch normalisation, torch's default


@dataclass(frozen=True)
class Published:
    """A dictionary in one form, see above.

    Attributes
    ----------
    W_enc, W_dec : ndarray, shape (I, D), float64
    b_enc : ndarray, shape (I,)
    b_dec : ndarray, shape (D,)
    threshold : ndarray, shape (I,), or None
        None where the file holds none.
    k : int or None
        Active latents of a position, where the file or its configuration says.
    centred : bool or None
        Whether `b_dec` is taken from the inputs; None where nothing says.
    """

    W_enc: Array
    W_dec: Array
    b_enc: Array
    b_dec: Array
    threshold: Array | None
    k: int | None
    centred: bool | None

    def pre(self, centred: bool) -> Array:
        """Encoder bias (I,) that goes with inputs from which `b_dec` is taken."""
        return self.b_enc if centred else self.b_enc + self.W_enc @ self.b_dec

    def judge(self, sample: Tensor, centred: bool, k: int | None) -> Judgement:
        """How good it is on positions (P, D); ``k`` active latents on average in place of its own thresholds."""
        given = None if self.threshold is None or k is not None else torch.from_numpy(self.threshold).float()
        W, b, D, offset = (
            torch.from_numpy(np.ascontiguousarray(one)).float()
            for one in (self.W_enc, self.pre(centred), self.W_dec, self.b_dec)
        )
        return judge(sample - offset, W, b, D, k or self.k, given)


def one_form(arrays: Mapping[str, Array], config: Mapping[str, Any] | None = None) -> Published:
    """A dictionary brought to one form.

    Raises `ValueError` (arrays that are missing, do not fit together, or belong to an autoencoder that is not linear
    before its activation (gated ones, inputs normalised one by one)).

    Parameters
    ----------
    arrays : mapping
        As they were read, by name.
    config : mapping, optional
        What was said beside them: ``k``, ``apply_b_dec_to_input``, ``normalize_activations``, ``dict_class``.
    """
    config = dict(config or {})
    for name in ("b_gate", "gate_bias", "r_mag"):
        if name in arrays:
            raise ValueError(f"Got `{name}`, of a gated autoencoder, expected one whose latents have one encoder")
    if config.get("normalize_activations") in _NOT_LINEAR:
        raise ValueError(
            f"Got normalize_activations={config['normalize_activations']!r}, expected activations as they are: store "
            "activations that are normalised so, and leave it out of cfg.json"
        )
    encoder, decoder = _first(arrays, _ENCODERS), _first(arrays, _DECODERS)
    offset = _first(arrays, _OFFSETS)
    missing = [
        names[0]
        for names, found in ((_ENCODERS, encoder), (_DECODERS, decoder), (_OFFSETS, offset))
        if found is None and not (names is _OFFSETS and str(decoder).startswith("dictionary"))
    ]
    if missing or encoder is None or decoder is None:
        raise ValueError(
            f"Got arrays {sorted(arrays)}, expected W_enc, W_dec, b_enc and b_dec as well, or the names that "
            f"sparsify, dictionary_learning or overcomplete give them (missing: {', '.join(missing)})"
        )
    W, D = (np.asarray(arrays[name], np.float64) for name in (encoder, decoder))
    b_dec = np.zeros(D.shape[-1]) if offset is None else np.asarray(arrays[offset], np.float64)
    bias = _first(arrays, _ENCODER_BIASES)
    if bias is None and decoder == "W_dec" and encoder == "W_enc":
        raise ValueError(f"Got arrays {sorted(arrays)}, expected b_enc as well")
    b_enc = np.zeros(max(W.shape)) if bias is None else np.asarray(arrays[bias], np.float64)
    shapes = f"{encoder} {W.shape}, {decoder} {D.shape}, b_enc {b_enc.shape}, b_dec {b_dec.shape}"
    if b_enc.ndim != 1 or b_dec.ndim != 1:
        raise ValueError(f"Got {shapes}, expected (D, I), (I, D), (I,) and (D,)")
    wanted = (len(b_enc), len(b_dec))
    # what is square goes by the custom of its name
    W = W.T if W.shape == wanted[::-1] and (wanted[0] != wanted[1] or encoder == "W_enc") else W
    D = D.T if D.shape == wanted[::-1] and (wanted[0] != wanted[1] or decoder == "decoder.weight") else D
    if W.shape != wanted or D.shape != wanted:
        raise ValueError(f"Got {shapes}, expected (D, I), (I, D), (I,) and (D,)")
    norm = "encoder.final_block.1."
    if f"{norm}running_var" in arrays:
        gain = arrays.get(f"{norm}weight", 1.0) / np.sqrt(np.asarray(arrays[f"{norm}running_var"], float) + _EPSILON)
        W, b_enc = W * np.reshape(gain, (-1, 1)), (b_enc - arrays[f"{norm}running_mean"]) * gain
        b_enc = b_enc + arrays.get(f"{norm}bias", 0.0)
    if decoder.startswith("dictionary"):
        D = D / np.maximum(np.linalg.norm(D, axis=1, keepdims=True), 1e-12)
    if "b_pre" in arrays and offset != "b_pre":  # taken from the inputs, b_dec is only added
        b_enc = b_enc - W @ (np.asarray(arrays["b_pre"], np.float64) - b_dec)
        centred: bool | None = True
    else:
        usual = None if encoder == "W_enc" else True
        centred = {"decoder.bias": False, "bias": True, "pre_bias": True, "b_pre": True}.get(str(offset), usual)
        centred = config.get("apply_b_dec_to_input", centred)
        if config.get("dict_class") in ("JumpReluAutoEncoder", "AutoEncoderNew"):
            centred = False
    if not b_dec.any():
        centred = True
    scale = float(np.asarray(arrays.get("scale", 1.0)).reshape(-1)[0])
    if not scale > 0:
        raise ValueError(f"Got scale={scale}, expected a positive number that inputs are multiplied by")
    # (s x - b_dec) W = (x - b_dec / s) s W
    W, D, b_dec = W * scale, D / scale, b_dec / scale
    for name, values in (("the encoder", W), ("the decoder", D), ("b_enc", b_enc), ("b_dec", b_dec)):
        if not np.isfinite(values).all():
            raise ValueError(f"Got NaN or infinite values in {name}, expected finite numbers")
    k = config.get("k", np.asarray(arrays["k"]).reshape(-1)[0] if "k" in arrays else None)
    return Published(W, D, b_enc, b_dec, _threshold(arrays, len(b_enc)), None if k is None else int(k), centred)


def _first(arrays: Mapping[str, Array], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _threshold(arrays: Mapping[str, Array], count: int) -> Array | None:
    """Thresholds (I,), at least 0; a single one below 0 was never set."""
    for name, read in (("threshold", np.asarray), ("log_threshold", np.exp), ("thresholds", np.exp)):
        if name not in arrays:
            continue
        found = np.asarray(read(np.asarray(arrays[name], np.float64))).reshape(-1)
        if found.size not in (1, count) or not np.isfinite(found).all():
            raise ValueError(f"Got {name} of shape {np.shape(arrays[name])}, expected one number or ({count},)")
        if found.size == 1 and found[0] < 0:
            return None
        return np.broadcast_to(np.maximum(found, 0), (count,)).copy()
    return None
