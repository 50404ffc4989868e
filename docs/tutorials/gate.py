# %% [markdown]
# # I am about to ship a fine-tuned model
#
# A model is in production and a new version is ready. Its accuracy is as good as ever; what else has changed? This
# tutorial ships a small digit network, fine-tunes it twice, once with care and once with a mistake in the labels, and
# lets `rdx` decide. It needs no download and less than two minutes.
#
# Open this file as a notebook (VS Code, Jupytext), or run it: `python docs/tutorials/gate.py`.

# %%
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import rdxcli as rdx
from rdxcli.models import load

place = Path(tempfile.mkdtemp())
shipped = load("digits-cnn").module

# %% [markdown]
# Two candidates: both are trained a little longer, on every second digit. In the labels of the second one every 9 is
# called 4, as after a slip in a mapping of classes.

# %%
digits = load_digits()
pixels = torch.tensor(digits.images[::2] / 16 * 2 - 1, dtype=torch.float32)[:, None]
target = torch.tensor(digits.target[::2])


def fine_tuned(labels: torch.Tensor, steps: int, rate: float) -> dict[str, torch.Tensor]:
    model = load("digits-cnn").module.requires_grad_(True)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    torch.manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(pixels), (64,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(pixels[rows]), labels[rows]).backward()
        optimiser.step()
    return model.state_dict()


versions = {
    "shipped": shipped.state_dict(),
    "careful": fine_tuned(target, 20, 1e-4),
    "careless": fine_tuned(torch.where(target == 9, 4, target), 60, 3e-2),
}
how = "arch=mnist_cnn&input_size=8&scale=255&mean=0.5&std=0.5"
names = {}
for name, state in versions.items():
    save_file({key: value.detach().contiguous() for key, value in state.items()}, place / f"{name}.safetensors")
    names[name] = f"file:{place / name}.safetensors?{how}"

# %% [markdown]
# A checkpoint is a model like any other. Both sides are read once, features and predictions together. The question is
# not whether two networks are alike, but whether this one *changed*: both are runs of the same weights, so that
# rounding is what nothing is measured by.

# %%
answers = {}
for candidate in ("careful", "careless"):
    found = rdx.compare(
        names["shipped"], names[candidate], dataset="digits", sample=500, k=2, bootstraps=0, outputs=place / "outputs"
    )
    answers[candidate] = found
    told = found.predictions
    print(f"{candidate}: {found.verdict} ({found.difference['question']}), score {found.difference['score']:.3f}")
    for what in ("negative_flips", "positive_flips"):
        share = told[what]
        print(f"  {what.replace('_', ' ')}: {share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})")
    print(f"  confidence {told['confidence_shift']['value']:+.1%}")

# %% [markdown]
# Which images are it? Groups of the comparison say where right predictions became wrong, against all other images; a
# list has every image, those that moved most first.

# %%
careless = answers["careless"]
for group, counts in careless.predictions["groups"].items():
    test = counts["tests"]["negative_flips"]
    if test["p_corrected"] <= 0.05:
        concept = next(one for one in careless.concepts if f"{one['closer_in']}{one['index']}" == group)
        wrong = counts["negative_flips"]["count"]
        print(f"{group}: {wrong} of {counts['n']} went wrong (of all others {test['rest']:.1%})")
        print("   labels:", {name: f"{share:.0%}" for name, share in concept["labels"].items()})
with open(careless.path / "images.csv", encoding="utf-8") as stream:
    moved = list(csv.DictReader(stream))[:5]
for row in moved:
    print(row["sample_id"], "label", row["label"], "neighbours in common", row["common_neighbours"])

# %% [markdown]
# The gate. In a nightly job the same comparison runs on the command line and ends with exit code 3 when a condition
# holds. "Changed at all" is a strict question: careful training is a change too, and a gate on the verdict would stop
# it. What usually matters is what becomes of the predictions, and whether the change is larger than some yardstick:
#
#     rdx compare OLD NEW --dataset digits --fail-on 'negative-flips>1%'
#     rdx compare OLD NEW --dataset digits --yardstick jitter --fail-on reference
#     rdx compare OLD NEW --dataset digits --fail-on verdict          # bit for bit, but for rounding
#
# Conditions are checked for sense before the work; a new checkpoint under the old name makes a new run beside the old
# one.

# %%
options = (
    "--dataset",
    "digits",
    "--sample",
    "500",
    "--k",
    "2",
    "--bootstraps",
    "0",
    "--outputs",
    str(place / "outputs"),
)
gate = ("--fail-on", "negative-flips>1%", "--quiet")
codes = {}
for candidate in ("careful", "careless"):
    command = (sys.executable, "-m", "rdxcli", "compare", names["shipped"], names[candidate], *options, *gate)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    codes[candidate] = done.returncode
    print(candidate, "exit code", done.returncode, done.stderr.strip()[-200:])

# %% [markdown]
# The page to send along: what differs, with pictures, flips and intervals.

# %%
page = rdx.report(careless, to=place / "careless.html")
print(page, f"{page.stat().st_size / 1e6:.1f} MB")
