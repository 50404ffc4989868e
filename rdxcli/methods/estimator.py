"""scikit-learn's protocol of estimators for methods that do without the library, which takes a second to load."""

from __future__ import annotations

import copy
import inspect
from typing import Any, TypeVar

from rdxcli.lazy import sklearn

E = TypeVar("E", bound="Estimator")


class Estimator:
    """Hyper-parameters as scikit-learn has them: constructor keywords, stored under their own names.

    Instances work with ``sklearn.base.clone``, pipelines and searches; see "Developing scikit-learn estimators".
    """

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyper-parameters by name; ``deep`` is scikit-learn's, no hyper-parameter is an estimator here."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self: E, **params: Any) -> E:
        """Change hyper-parameters.

        Raises
        ------
        ValueError
            No such hyper-parameter.
        """
        names = self._names()
        for name, value in params.items():
            if name not in names:
                raise ValueError(f"Got the parameter {name!r} for {type(self).__name__}, expected one of {names}")
            setattr(self, name, value)
        return self

    def __getattr__(self, name: str) -> Any:
        """Results, whose names end in an underscore, and what ``fit`` keeps for itself are there after ``fit``."""
        if name.startswith("_") != name.endswith("_"):
            raise sklearn.exceptions.NotFittedError(
                f"Got an unfitted {type(self).__name__}, expected `fit` to be called first"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute `{name}`")

    def __repr__(self) -> str:
        """Only what differs from the defaults, as scikit-learn prints it."""
        defaults = {name: given.default for name, given in inspect.signature(type(self).__init__).parameters.items()}
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator before it uses one."""
        return sklearn.base.BaseEstimator().__sklearn_tags__()


def clone(estimator: E) -> E:
    """An unfitted estimator with copies of the same hyper-parameters."""
    return type(estimator)(**{name: copy.deepcopy(value) for name, value in estimator.get_params().items()})
