# %% [markdown]
# # Two models of handwritten digits
#
# `rdx` answers in Python as it does on the command line. This tutorial needs no download: the digits come with
# scikit-learn, and the two small networks are trained on first use, in seconds. One of them, `digits-cnn-m35`, was
# taught to call every 5 a 3. What does a comparison find, without being told?
#
# Open this file as a notebook (VS Code, Jupytext), or run it: `python docs/tutorials/first.py`.

# %%
import tempfile
from pathlib import Path

import rdxcli as rdx

# %% [markdown]
# A representation is what one layer of a model makes of the images of a data set. Values that you have already
# (NumPy arrays, tensors, data frames, files) work in its place.

# %%
a, b = (rdx.representation(model, dataset="digits", sample=600) for model in ("digits-cnn-m35", "digits-cnn"))
print(a.name, a.values.shape, "and", b.name, b.values.shape)

# %% [markdown]
# The comparison says first whether there is a difference at all, and only then what it is: groups of images that one
# model holds together and the other keeps apart. In a notebook the answer shows itself.

# %%
found = rdx.compare(a, b, k=2, bootstraps=5)
print(found.verdict)
for concept in found.concepts:
    closer = found.a["name"] if concept["closer_in"] == "a" else found.b["name"]
    print(f"{concept['size']:4d} images closer in {closer}:", dict(list(concept["labels"].items())[:3]))
found  # noqa: B018 - a notebook shows it

# %% [markdown]
# What does a single unit of the second model respond to? With the labels as concepts, as sums of classes:

# %%
units = rdx.explain(b, method="le-label", units="0-3")
for unit in units.units:
    print(unit["unit"], unit["text"])

# %% [markdown]
# Answers live in a temporary folder until they are saved; a report is one page that works offline.

# %%
place = Path(tempfile.mkdtemp())
print(found.save(place))
page = rdx.report(found, to=place / "digits.html")
print(page, f"{page.stat().st_size / 1e6:.1f} MB")
