"""RDX keeps scikit-learn's protocol without loading it, and nothing heavy is loaded for arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sklearn.base
from sklearn.metrics import adjusted_rand_score

from rdxcli.methods.difference.approximate import adjusted_rand
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.estimator import clone


def test_hyper_parameters_as_scikit_learn_has_them():
    rdx = RDX(4, beta=3.0)
    for copy in (sklearn.base.clone(rdx), clone(rdx)):
        assert copy.get_params() == rdx.get_params()
        assert copy is not rdx
    assert rdx.set_params(beta=2.0).beta == 2.0
    assert repr(rdx) == "RDX(n_clusters=4, beta=2.0)"
    with pytest.raises(ValueError, match="Got the parameter 'alpha' for RDX"):
        rdx.set_params(alpha=1)
    assert sklearn.utils.get_tags(rdx) is not None


def test_arrays_on_the_cpu_need_neither_torch_nor_scikit_learn():
    code = (
        "import sys, numpy as np\n"
        "from rdxcli.services.compare import compare\n"
        "from rdxcli.methods.difference.rdx import RDX\n"
        "from rdxcli.methods.difference.significance import difference_test\n"
        "X = np.random.default_rng(0).normal(size=(60, 5))\n"
        "difference_test(X, X[:, ::-1] ** 3, estimator=RDX(2, device='cpu').fit(X, X ** 3), device='cpu')\n"
        "print([name for name in ('torch', 'sklearn', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 4, 80), rng.integers(0, 3, 80)
    second[:40] = first[:40] % 3
    counts = np.zeros((4, 3))
    np.add.at(counts, (first, second), 1)
    assert adjusted_rand(counts) == pytest.approx(adjusted_rand_score(first, second))
    assert adjusted_rand(np.array([[5.0]])) == 1.0
