"""The surrogate: one affine map from concept encodings into the joint space of a vision-language model.

Symbols: c_i (C,) concept encoding of image i; W (D, C), b (D,); z_i = W c_i + b. The weights are kept transposed, one
row per concept, so that z_i is a weighted sum of the rows of the image's few concepts (`torch` calls that an embedding
bag): O(nnz D) instead of O(B C D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rdxcli.numerics.seeding import torch_generator
from rdxcli.progress import human_count


@dataclass(frozen=True)
class Rows:
    """Encodings of a batch in CSR form.

    Parameters
    ----------
    indptr : (B + 1,) int64 tensor
    indices : (nnz,) int64 tensor
    values : (nnz,) floating-point tensor
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor

    @classmethod
    def of(cls, indptr: Any, indices: Any, values: Any, *, dtype: Any = torch.float32, device: Any = "cpu") -> Rows:
        """From NumPy arrays or tensors."""
        return cls(
            torch.as_tensor(indptr, dtype=torch.int64, device=device),
            torch.as_tensor(indices, dtype=torch.int64, device=device),
            torch.as_tensor(values, dtype=dtype, device=device),
        )

    @classmethod
    def from_dense(cls, matrix: Any, *, dtype: Any = torch.float32, device: Any = "cpu") -> Rows:
        """From a dense (B, C) matrix."""
        values = torch.as_tensor(matrix, dtype=dtype, device=device)
        row, column = torch.nonzero(values, as_tuple=True)
        sizes = torch.bincount(row, minlength=len(values))
        return cls(functional.pad(sizes.cumsum(0), (1, 0)), column, values[row, column])


class Surrogate(nn.Module):
    """Affine surrogate, with the options of the publication.

    Parameters
    ----------
    num_concepts : int
        C.
    dim : int
        D, the dimension of the joint space.
    text_dim : int, optional
        Dimension of the text embeddings, when a key encoder maps them to D.
    use_key_encoder : bool
        Also learn an affine map of the text embeddings (published option).
    mlp_dim : int, optional
        Adds Linear(C, h), sigmoid, Linear(h, D) to the affine map. Concept scores describe the affine part only, so
        they do not add up to what such a surrogate computes.
    temperature : float
        Student temperature of the training; stored, not used in `forward`.
    random_state : int
        Seed of the initial weights, uniform on +-1/sqrt(fan in) as PyTorch's default.
    """

    def __init__(
        self,
        num_concepts: int,
        dim: int,
        *,
        text_dim: int | None = None,
        use_key_encoder: bool = False,
        mlp_dim: int | None = None,
        temperature: float = 0.1,
        random_state: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        for name, size in (("num_concepts", num_concepts), ("dim", dim)):
            if size < 1:
                raise ValueError(f"Got {name}={size}, expected at least 1")
        if mlp_dim is not None and mlp_dim < 1:
            raise ValueError(f"Got mlp_dim={mlp_dim}, expected at least 1")
        text_dim = dim if text_dim is None else text_dim
        if not use_key_encoder and text_dim != dim:
            raise ValueError(
                f"Got text embeddings of {human_count(text_dim, 'dimension')} and a surrogate of {dim}; "
                "expected equal ones"
            )
        self.num_concepts, self.dim, self.text_dim = num_concepts, dim, text_dim
        self.use_key_encoder, self.mlp_dim, self.temperature = use_key_encoder, mlp_dim, temperature

        def uniform(name: str, *shape: int, fan_in: int) -> nn.Parameter:
            generator = torch_generator(random_state, "surrogate", "initial", name)
            bound = fan_in**-0.5
            values = torch.rand(*shape, generator=generator, dtype=torch.float64) * (2.0 * bound) - bound
            return nn.Parameter(values.to(dtype))

        C = num_concepts
        self.table = uniform("query.weight", C, dim, fan_in=C)
        self.bias = uniform("query.bias", dim, fan_in=C)
        if use_key_encoder:
            self.key_weight = uniform("key.weight", dim, text_dim, fan_in=text_dim)
            self.key_bias = uniform("key.bias", dim, fan_in=text_dim)
        if mlp_dim is not None:
            self.mlp_table = uniform("mlp.0.weight", C, mlp_dim, fan_in=C)
            self.mlp_bias = uniform("mlp.0.bias", mlp_dim, fan_in=C)
            self.mlp_out = uniform("mlp.2.weight", dim, mlp_dim, fan_in=mlp_dim)
            self.mlp_out_bias = uniform("mlp.2.bias", dim, fan_in=mlp_dim)

    def forward(self, rows: Rows) -> Tensor:
        """z of a batch: (B, D)."""
        z = _bag(rows, self.table) + self.bias
        if self.mlp_dim is not None:
            z = z + functional.linear(
                torch.sigmoid(_bag(rows, self.mlp_table) + self.mlp_bias), self.mlp_out, self.mlp_out_bias
            )
        return z

    def keys(self, text: Tensor) -> Tensor:
        """Text side of the student: the embeddings themselves, or the key encoder's image of them: (B, D)."""
        return functional.linear(text, self.key_weight, self.key_bias) if self.use_key_encoder else text

    @property
    def weight(self) -> Tensor:
        """W (D, C), a view."""
        return self.table.detach().T

    def published_state(self) -> dict[str, Tensor]:
        """The parameters under the names and in the layout of the publication, contiguous and on the CPU.

        ``query_encoder.weight`` (D, C), ``query_encoder.bias``, and where they exist ``key_encoder.*``,
        ``mlp_encoder.0.*``, ``mlp_encoder.2.*``.
        """
        out = {
            name: parameter.detach().T if name in _TRANSPOSED else parameter.detach()
            for name, parameter in self.named_parameters()
        }
        return {_NAMES[name]: value.cpu().contiguous() for name, value in out.items()}

    @classmethod
    def from_published_state(cls, state: Mapping[str, Any], *, temperature: float = 0.1) -> Surrogate:
        """The surrogate whose `published_state` this is; tensors or arrays.

        Raises `ValueError` when a parameter is missing, unknown, not finite or of a wrong shape.
        """
        tensors = {name: torch.as_tensor(np.asarray(value)) for name, value in state.items()}
        if unknown := set(tensors) - set(_NAMES.values()):
            raise ValueError(f"Got unknown parameters {', '.join(sorted(unknown))}, expected those of a surrogate")
        if "query_encoder.weight" not in tensors or tensors["query_encoder.weight"].ndim != 2:
            raise ValueError("Got no matrix `query_encoder.weight`, expected the weights of a surrogate")
        dim, concepts = tensors["query_encoder.weight"].shape
        key, mlp = tensors.get("key_encoder.weight"), tensors.get("mlp_encoder.0.weight")
        model = cls(
            concepts,
            dim,
            text_dim=None if key is None else key.shape[1],
            use_key_encoder=key is not None,
            mlp_dim=None if mlp is None else mlp.shape[0],
            temperature=temperature,
            dtype=tensors["query_encoder.weight"].dtype,
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if _NAMES[name] not in tensors:
                    raise ValueError(f"Got no `{_NAMES[name]}`, expected it with the others")
                value = tensors[_NAMES[name]]
                value = value.T if name in _TRANSPOSED else value
                if value.shape != parameter.shape or not bool(torch.isfinite(value).all()):
                    raise ValueError(
                        f"Got `{_NAMES[name]}` of shape {tuple(value.shape)} or with values that are not finite"
                    )
                parameter.copy_(value)
        return model


_NAMES = {
    "table": "query_encoder.weight",
    "bias": "query_encoder.bias",
    "key_weight": "key_encoder.weight",
    "key_bias": "key_encoder.bias",
    "mlp_table": "mlp_encoder.0.weight",
    "mlp_bias": "mlp_encoder.0.bias",
    "mlp_out": "mlp_encoder.2.weight",
    "mlp_out_bias": "mlp_encoder.2.bias",
}
_TRANSPOSED = frozenset(["table", "mlp_table"])


def _bag(rows: Rows, table: Tensor) -> Tensor:
    return functional.embedding_bag(
        rows.indices,
        table,
        rows.indptr,
        mode="sum",
        per_sample_weights=rows.values.to(table.dtype),
        include_last_offset=True,
    )
