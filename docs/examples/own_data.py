# %% [markdown]
# # Your own data
#
# A table as people have it: numbers, a column of text, labels in words. Here it is made up and written as a CSV;
# yours is a CSV, a Parquet file, a NumPy file, a folder of images, a text, or what you hold in Python.

# %%
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

rng = np.random.default_rng(0)
size = rng.normal(90, 25, 400).clip(20).round(1)
city = rng.choice(["Bern", "Basel", "Chur"], 400)
rooms = (size / 28 + rng.normal(0, 0.5, 400)).round().clip(1)
rent = 9 * size + 150 * rooms + 400 * (city == "Bern") - 200 * (city == "Chur") + rng.normal(0, 120, 400)
table = pa.table({"size": size, "rooms": rooms, "city": city, "rent": np.where(rent > 1450, "dear", "cheap")})
csv.write_csv(table, "flats.csv")
print(Path("flats.csv").read_text()[:130])

# %% [markdown]
# ## In Python
#
# `zoo.fit` takes the table and the target; an Arrow table, a data frame of pandas or polars and a dict of columns are
# all read alike. The column of text becomes a column of zeros and ones for each city, and the coding becomes part of
# the model, as the scaling does of models that need one.

# %%
import zoo

labels = table["rent"].to_pylist()
features = table.drop_columns("rent")
model = zoo.fit(zoo.create_model("logistic_regression"), features, labels)
model.spec.feature_names

# %%
model.score(features, labels)

# %% [markdown]
# New rows come as they are, in any order of the columns, and the answers are your own labels:

# %%
new = pa.table({"city": ["Bern", "Chur"], "rooms": [3.0, 3.0], "size": [85.0, 85.0]})
model.predict(new)

# %%
answers = model.predict_table(new)
answers.to_pydict()

# %% [markdown]
# Trees read the same table, and their permutation importance says what they went by:

# %%
from zoo.analysis import permutation_importance

forest = zoo.fit(zoo.create_model("random_forest", num_trees=50), features, labels, seed=0)
importance = permutation_importance(forest, features, labels)
for row in importance.table():
    print(row["feature"].ljust(6), round(row["fall"], 3))

# %% [markdown]
# ## From the command line
#
# The same file, with rows kept aside for validation and test. What the zoo makes of a column that is no number is
# said in a line.

# %% language="bash"
# zoo-train model=gradient_boosting data=csv data.path=flats.csv data.target=rent run_dir=flats | tail -n 14

# %% language="bash"
# printf 'size,rooms,city\n140,5,Bern\n40,1,Chur\n' > new.csv
# zoo predict run=flats data.path=new.csv output=-

# %% [markdown]
# What each kind of file may hold, and every rule for columns: [data](../data.md).
