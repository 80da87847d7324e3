"""Trains a classifier on the Wisconsin breast cancer data: /inputs/patients/breast_cancer.csv -> /outputs/model/.

The model is written as plain numbers, not as a pickle: whoever opens it runs none of its code.
"""
import json

import numpy
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

with open("/inputs/patients/breast_cancer.csv", encoding="utf-8") as file:
    head = file.readline().strip().split(",")
    table = numpy.loadtxt(file, delimiter=",")
rows, columns, classes = int(head[0]), int(head[1]), head[2:]
assert table.shape == (rows, columns + 1), table.shape
features, target = table[:, :-1], table[:, -1].astype(int)

# Every fourth row is held out: whoever has the data and the model can compute the same score.
held_out = numpy.arange(rows) % 4 == 3
scaler = StandardScaler().fit(features[~held_out])
model = LogisticRegression(max_iter=1000).fit(scaler.transform(features[~held_out]), target[~held_out])
hits = int((model.predict(scaler.transform(features[held_out])) == target[held_out]).sum())
total = int(held_out.sum())
print(f"scikit-learn {sklearn.__version__}: trained on {rows - total} rows, {hits} of {total} held-out rows right ({hits / total:.4f})")

with open("/outputs/model/model.json", "w", encoding="utf-8") as file:
    json.dump(
        {
            "classes": classes,
            "mean": scaler.mean_.tolist(),
            "scale": scaler.scale_.tolist(),
            "coefficients": model.coef_[0].tolist(),
            "intercept": float(model.intercept_[0]),
        },
        file,
    )
with open("/outputs/model/score.json", "w", encoding="utf-8") as file:
    json.dump({"hits": hits, "held_out": total}, file)
