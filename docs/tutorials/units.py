# %% [markdown]
# # What does a unit respond to, and how far can you trust the answer?
#
# An explanation of a unit is a claim: "this unit is active for fours, and for eights". A claim can be tested. This
# tutorial explains the units of a small network, lets the explanations predict activations on images that they have
# not seen, and compares that with what chance reaches.

# %%
import matplotlib.pyplot as plt
import numpy as np

import rdxcli as rdx

network = rdx.representation("digits-cnn-early", dataset="digits", sample=600)
print(network.name, network.layer, network.values.shape)

# %% [markdown]
# ## Explain
#
# `le-label` writes each unit as a weighted sum of a few labels. It is fitted on 70 % of the images, the number of
# labels is chosen on 10 %, and the score comes from the last 20 %.

# %%
found = rdx.explain(network, method="le-label", units="0-7")
for unit in found.units:
    print(f"unit {unit['unit']}: {unit['text']}")

# %% [markdown]
# ## Trust
#
# `rdx.simulate` takes the explanation alone, predicts what the unit should do on the held-out images, and correlates
# that with what it did. `chance` is what the best explanation of a shuffled unit reaches; the interval says how sure
# the score is.

# %%
tested = rdx.simulate(found, network)
scores = tested.methods[0]["units"]
print("unit  score  interval        chance")
for unit in scores:
    print(f"{unit['unit']:4d}  {unit['score']:.2f}   {unit['low']:.2f} to {unit['high']:.2f}    {unit['chance']:.2f}")

# %% [markdown]
# A picture says it faster. What lies left of the grey mark says nothing.

# %%
figure, axis = plt.subplots(figsize=(6, 2.6))
place = np.arange(len(scores))
score = np.array([unit["score"] for unit in scores])
spread = np.array([[unit["score"] - unit["low"], unit["high"] - unit["score"]] for unit in scores]).T
axis.errorbar(score, place, xerr=spread, fmt="o", label="score, 95 % interval")
axis.plot([unit["chance"] for unit in scores], place, "|", color="grey", markersize=14, label="chance")
axis.set(xlabel="correlation on held-out images", ylabel="unit", xlim=(0, 1))
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()
figure  # noqa: B018 - a notebook shows it

# %% [markdown]
# ## What a test like this must catch
#
# Take the explanations of the same units, but hand each one to its neighbour. A method of scoring that still found
# them good would be worth nothing.

# %%
labels = np.array([int(label) for label in network.labels])
rng = np.random.default_rng(0)
held_out = rng.choice(len(labels), 120, replace=False)


def predicted(unit: dict) -> np.ndarray:
    weights = {concept["concept"]: concept["weight"] for concept in unit["concepts"]}
    return np.array([weights.get(str(label), 0.0) for label in labels[held_out]])


right, swapped = [], []
for place, unit in enumerate(found.units):
    truth = network.values[held_out]
    right.append(np.corrcoef(predicted(unit), truth[:, unit["unit"]])[0, 1])
    swapped.append(np.corrcoef(predicted(unit), truth[:, found.units[place - 1]["unit"]])[0, 1])
print(f"mean correlation: own unit {np.mean(right):.2f}, neighbour's unit {np.mean(swapped):.2f}")
assert np.mean(right) > np.mean(swapped) + 0.3

# %% [markdown]
# On the command line: `rdx explain --method le-label --model digits-cnn-early`, then `rdx simulate --method le-label
# --model digits-cnn-early`, then `rdx visualize`. With words instead of labels, and with a vision-language model as
# the judge: `rdx help explain` and `rdx help simulate`.
