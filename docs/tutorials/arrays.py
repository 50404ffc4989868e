# %% [markdown]
# # Your own arrays: which camera did the new pipeline break?
#
# You have embeddings of the same images from two pipelines, in files, and no model that `rdx` could load. That is
# enough. Here the images are handwritten digits "from four cameras" and the embeddings are principal components. The
# new pipeline has a fault that nobody knows of yet: it ignores the orientation flag of one camera and sees its
# pictures on their side.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import rdxcli as rdx

digits = load_digits()
rng = np.random.default_rng(0)
rows = rng.permutation(len(digits.images))[:400]
images, cameras = digits.images[rows], rng.choice(["north", "south", "east", "west"], len(rows))
seen = np.where((cameras == "west")[:, None, None], np.rot90(images, axes=(1, 2)), images)

embed = PCA(20, random_state=0).fit(digits.data).transform
before, after = embed(images.reshape(-1, 64)), embed(seen.reshape(-1, 64))

# %% [markdown]
# ## Into files
#
# Any format will do (`rdx help datasets`); a table keeps values, ids and tags together. With ids on both sides rows
# are joined by them and never by position, so the second file may be in any order.

# %%
place = Path(tempfile.mkdtemp())
for name, values, order in (("before", before, np.arange(400)), ("after", after, rng.permutation(400))):
    columns = {f"f{i}": values[order, i] for i in range(20)}
    ids = [f"img-{row:04d}" for row in rows[order]]
    pq.write_table(pa.table({"id": ids, "camera": cameras[order], **columns}), place / f"{name}.parquet")

a, b = (rdx.representation(place / f"{name}.parquet", label_column="camera") for name in ("before", "after"))
print(a.values.shape, a.sample_ids[:2], "and", b.values.shape, b.sample_ids[:2])

# %% [markdown]
# ## What changed?
#
# Labels need not be classes. Any tag of the rows will do: a camera, a hospital, a year. Tags take no part in finding
# the groups; they only say what is in them. By chance a camera has a quarter of every group.

# %%
found = rdx.compare(a, b, k=2, bootstraps=5)
print(found.verdict)
for sentence in found.difference["sentences"]:
    print(" ", sentence)
for concept in found.concepts:
    side = found.a["name"] if concept["closer_in"] == "a" else found.b["name"]
    shares = ", ".join(f"{tag} {share:.0%}" for tag, share in list(concept["labels"].items())[:2])
    print(f"{concept['size']:4d} images close together in `{side}`: {shares}")

# %% [markdown]
# The groups that only the new pipeline holds together consist of one camera. Look at what is in them, as the old
# pipeline saw the pictures and as the new one does:

# %%
group = next(c for c in found.concepts if c["closer_in"] == "b")
chosen = [int(np.flatnonzero(rows == int(name.split("-")[1]))[0]) for name in group["sample_ids"][:8]]
figure, axes = plt.subplots(2, 8, figsize=(8, 2.2))
for row, (title, pictures) in enumerate((("before", images), ("after", seen))):
    for axis, picture in zip(axes[row], pictures[chosen], strict=True):
        axis.imshow(picture, cmap="gray_r")
        axis.set_xticks([])
        axis.set_yticks([])
    axes[row, 0].set_ylabel(title)
figure.tight_layout()
figure  # noqa: B018 - a notebook shows it

# %% [markdown]
# The same from the command line, as a gate that fails when the difference score is above a limit:
#
#     rdx compare before.parquet after.parquet --label-column camera --k 2 --fail-above 0.2
#     rdx visualize
