# %% [markdown]
# # A first run
#
# One command trains a model on data that the package brings along, and says what came of it. With `pip install .` the
# command is `zoo-train`; in the checkout it is `python train.py` with the same arguments.

# %% language="bash"
# zoo-train model=kmeans data=iris model.num_clusters=3 run_dir=first

# %% [markdown]
# What a run leaves in its folder: the configuration with every default, the history of the metrics, the final ones,
# pictures, events for TensorBoard, and the checkpoints.

# %% language="bash"
# ls first first/checkpoints
# cat first/metrics.json

# %% [markdown]
# A run is a model. `zoo.load_model` takes the folder, and `predict` takes raw rows: scaling and the names of classes
# travel along.

# %%
import zoo
from sklearn.datasets import load_iris

model = zoo.load_model("first")
flowers = load_iris()
model.predict(flowers.data[:10])

# %% [markdown]
# The centres that it found, in standard deviations from the mean of each feature, and how many flowers of each
# species (rows) went to which cluster:

# %%
from sklearn.metrics.cluster import contingency_matrix

print(model.centroids.round(decimals=2))
contingency_matrix(flowers.target, model.predict(flowers.data))

# %% [markdown]
# Another model is another name, and any of its settings is an override. A network on the same flowers:

# %% language="bash"
# zoo-train model=mlp data=iris optimizer.lr=0.01 trainer.max_epochs=10 run_dir=second | tail -n 12

# %%
network = zoo.load_model("second")
network.predict(flowers.data[::30])  # the answers are in the labels of the data

# %% [markdown]
# `zoo list models` shows what else there is, `zoo help model=kmeans` every setting with its type, range and default,
# and `tensorboard --logdir runs` the curves and pictures. [Your own data](own_data.md) goes on from here.
