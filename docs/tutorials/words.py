# %% [markdown]
# # Which words explain this embedding?
#
# Models like CLIP put images and words into one space. SpLiCE writes the embedding of an image as a sparse sum of
# word embeddings, so that it can be read. With a real model that is one command (at the end). Here a stand-in without
# any download shows what happens and what to look out for: ten words, `zero` to `nine`, and images of digits.
#
# The stand-in has CLIP's peculiarity: images and words live in two separate cones of the space, the *modality gap*.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import rdxcli as rdx


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


model = rdx.representation("digits-cnn", dataset="digits", sample=600)
labels = np.array([int(label) for label in model.labels])
words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
learning, others = np.arange(300), np.arange(300, 600)

images = unit(np.asarray(model.values, dtype=np.float64))
gap = np.random.default_rng(0).standard_normal(images.shape[1])
texts = unit(np.array([images[learning][labels[learning] == digit].mean(0) for digit in range(10)]) + 0.3 * unit(gap))

# %% [markdown]
# ## The mean matters
#
# SpLiCE subtracts the mean of each side, which closes the gap. The mean image embedding must come from many images of
# the same model, and not from those that are explained.

# %%
splice = rdx.SpLiCE(l1=0.1).fit(texts, images[learning].mean(0))
weights = splice.transform(images[others]).toarray()
print(f"{(weights > 0).sum(1).mean():.1f} words an image on average")

# %% [markdown]
# ## Are the words right?
#
# The strongest word should be the digit. By chance it would be for one of ten images. (The network was trained on
# these digits, so that nearly all are right; with CLIP and thousands of words expect less.)

# %%
strongest = weights.argmax(1)
hit = (strongest == labels[others]).mean()
print(f"the strongest word is the digit for {hit:.0%} of the images")
assert hit > 0.8

wrong_mean = rdx.SpLiCE(l1=0.1).fit(texts, images[learning][labels[learning] == 3].mean(0))
missed = (wrong_mean.transform(images[others]).toarray().argmax(1) == labels[others]).mean()
print(f"with the mean of the threes alone: {missed:.0%}")

# %% [markdown]
# ## Reading a few
#
# Several words can mean that the picture is between two classes, or that the words overlap. The reconstruction says
# how much of the embedding the words cover: read them only where that is high.

# %%
rebuilt = unit(splice.reconstruct(splice.transform(images[others])))
covered = (rebuilt * images[others]).sum(1)
mixed = np.argsort(-np.sort(weights, 1)[:, -2])[:6]
pictures = load_digits().images
figure, axes = plt.subplots(1, 6, figsize=(8, 1.9))
for axis, row in zip(axes, mixed, strict=True):
    best = np.argsort(-weights[row])[:2]
    axis.imshow(pictures[int(model.sample_ids[others[row]])], cmap="gray_r")
    axis.set_title("\n".join(f"{words[word]} {weights[row, word]:.2f}" for word in best), fontsize=8)
    axis.set_xlabel(f"cosine {covered[row]:.2f}", fontsize=8)
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
figure  # noqa: B018 - a notebook shows it

# %% [markdown]
# With a real model and your own words and photos:
#
#     rdx explain --method splice --vlm clip_vit_b_32 --dataset folder:photos --concept-set words.txt
#
# A surrogate that is trained on captions explains predictions too ("why spoon, not fork?"): `rdx help explain-r`.
