# %% [markdown]
# # Why was this image misclassified?
#
# A network calls a picture an eight, and it is none. Which pictures does the network treat like it, and which few
# neurons say so? *Relaxed decision regions* answer with a rule: a handful of neurons that are on or off, and all
# images that obey.

# %%
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import rdxcli as rdx

# %% [markdown]
# `digits-cnn-early` stopped training too soon. `target="misclassified"` takes each of its mistakes as a target, and
# `use="causes"` asks for the cause.

# %%
found = rdx.explain(
    "digits-cnn-early", method="rdr", dataset="digits", sample=600, target="misclassified", use="causes"
)
mistakes = [region for region in found.regions if region["status"] == "bounded"]
print(f"{len(found.regions)} mistakes among 600 images, {len(mistakes)} with a region")

# %% [markdown]
# Each region counts what its members really are. `lift` compares the share of the wrong class among them with its
# share in the data: far above 1, these neurons see what that class looks like. At 1 they do not explain the mistake.

# %%
for region in mistakes[:6]:
    cause = region["cause"]
    print(
        f"image {region['target_id']}, label {cause['label']}, taken for a {cause['prediction']}."
        f" {len(region['members'])} images obey its rule,\n    {cause['prediction_share']:.0%} of the others are"
        f" {cause['prediction']}s, {cause['lift']:.1f} times as many as by chance."
    )

# %% [markdown]
# Look at one of them: the mistake first, then images that obey its rule, the nearest ones first. Above each its label:
# a mistake lies between two classes, with its own class nearest and the wrong one in the majority.

# %%
clearest = max(mistakes, key=lambda region: region["cause"]["lift"])
pictures = load_digits().images
figure, axes = plt.subplots(2, 8, figsize=(8, 2.8))
for axis, name, label in zip(axes.flat, clearest["sample_ids"], clearest["sample_labels"], strict=False):
    axis.imshow(pictures[int(name)], cmap="gray_r")
    axis.set(title=label, xticks=[], yticks=[])
figure.tight_layout()
figure  # noqa: B018 - a notebook shows it

# %% [markdown]
# The rule itself, as channel and position of the layer:

# %%
for state, (channel, row, column) in list(zip(clearest["states"], clearest["positions"], strict=True))[:5]:
    print(f"channel {channel} at ({row}, {column}) is {'on' if state else 'off'}")

# %% [markdown]
# From here: do these neurons *cause* the mistake? `--param ablate=mean` sets them to their mean in the network and
# compares with as many random neurons. On the command line, with a page to click through:
#
#     rdx explain --method rdr --model digits-cnn-early --target misclassified --param use=causes
#     rdx visualize
