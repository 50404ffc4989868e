# %% [markdown]
# # What do the latents of a sparse autoencoder stand for?
#
# A layer has more concepts than units, so single units mix them. A sparse autoencoder writes activations as sums of a
# few of many *latents*, each of which should stand for one thing. This tutorial learns one on a small network in a
# second, and then asks what must be asked of every dictionary: does it describe the layer, is each latent one thing,
# and is that more than chance?

# %%
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import rdxcli as rdx

layer = rdx.representation("digits-cnn-early", dataset="digits", sample=600)
found = rdx.explain(layer, method="sae", n_directions=24, k=3, steps=400)

# %% [markdown]
# ## Does it describe the layer?
#
# Explained variance with three active latents an image; and how many latents are dead, which is capacity thrown away.

# %%
health = found.scores["dictionary"]
print(
    f"explained variance {health['explained_variance']:.2f} with {health['l0']:.1f} active latents,"
    f" {health['dead']:.0%} dead"
)

# %% [markdown]
# ## Is a latent one thing?
#
# Labels took no part in learning. For every latent: the most frequent label among the images on which it is active,
# beside the share that this label has among all images.

# %%
rows = []
for latent in found.directions:
    label, share = next(iter(latent["labels"].items()))
    rows.append((share, latent["label_chance"][label], label, latent))
rows.sort(key=lambda row: -row[0])
print("latent  active on  label  share  chance")
for share, chance, label, latent in rows[:8]:
    print(f"{latent['index']:6d}  {latent['share']:9.0%}  {label:>5}  {share:5.0%}  {chance:6.0%}")

# %% [markdown]
# The strongest images of three latents: the first two of the table and the last. The last one shows what no table
# says.

# %%
pictures = load_digits().images
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2))
for line, (_, _, label, latent) in zip(axes, (rows[0], rows[1], rows[-1]), strict=True):
    for axis, name in zip(line, latent["sample_ids"], strict=False):
        axis.imshow(pictures[int(name)], cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(f"{latent['index']}: {label}", rotation=0, ha="right")
figure.tight_layout()
figure  # noqa: B018 - a notebook shows it

# %% [markdown]
# ## And compared with something simpler?
#
# A latent is worth its cost when it is purer than what the layer has anyway. Its own units, each active where it is
# above its mean plus one standard deviation:

# %%
labels = layer.labels
purest = []
for values in layer.values.T:
    active = labels[values > values.mean() + values.std()]
    purest.append(max((active == label).mean() for label in set(active)))
latents = [row[0] for row in rows]
print(
    f"mean share of the top label: {sum(latents) / len(latents):.2f} of latents,"
    f" {sum(purest) / len(purest):.2f} of units"
)

# %% [markdown]
# On the command line, with influence on the outputs, names and pictures:
#
#     rdx explain --method sae --model digits-cnn-early --n-directions 24 --param k=3 --param steps=400
#     rdx visualize
#
# Published dictionaries are read as they are (`rdx help dictionaries`).
