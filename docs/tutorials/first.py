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
a = rdx.representation("digits-cnn-m35", dataset="digits", sample=600)
b = rdx.representation("digits-cnn", dataset="digits", sample=600)
print(a.name, a.values.shape, "and", b.name, b.values.shape)

# %% [markdown]
# The comparison says first whether there is a difference at all, and only then what it is: groups of images that one
# model holds together and the other keeps apart. In a notebook the answer shows itself.
#
# In its table *strength* is how much of the difference a group explains, with the interval that other images of the
# kind would give; *stability* how much of the group comes back when images are drawn anew; *p* how often a group as
# strong is found between two random versions of one model (read-outs), and *sd* how far beyond those it lies.

# %%
found = rdx.compare(a, b, k=2, bootstraps=5)
print(found.verdict)
for concept in found.concepts:
    closer = found.a["name"] if concept["closer_in"] == "a" else found.b["name"]
    labels = ", ".join(f"{name} {share:.0%}" for name, share in list(concept["labels"].items())[:3])
    print(f"{concept['size']:4d} images closer in {closer}: {labels}")
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
