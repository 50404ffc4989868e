"""Half of a model with two towers, as a network of its own."""

from __future__ import annotations

from torch import Tensor, nn

from rdxcli.models.taps import embedding


class ImageTower(nn.Module):
    """The image half of a model as a network of its own."""

    def __init__(self, model: nn.Module, function: str, argument: str | None) -> None:
        super().__init__()
        self.model, self.function, self.argument = model, function, argument

    def forward(self, images: Tensor) -> Tensor:
        encode = getattr(self.model, self.function)
        output = encode(images) if self.argument is None else encode(**{self.argument: images})
        return embedding(output)
