//! The model's score, computed again from its numbers alone: no line of scikit-learn takes part.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// Held-out rows, and how many of them the model has right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Score {
    hits: u64,
    held_out: u64,
}

impl Score {
    pub(crate) fn json(self) -> Value {
        serde_json::json!({"hits": self.hits, "held_out": self.held_out})
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.hits, self.held_out)
    }
}

/// Judges every fourth row, as the training script holds them out, with the linear model of the file.
pub(crate) fn recompute(data: &str, model: &Path) -> anyhow::Result<Score> {
    let text = std::fs::read(model).with_context(|| model.display().to_string())?;
    judge(data, &serde_json::from_slice(&text)?)
}

fn judge(data: &str, model: &Value) -> anyhow::Result<Score> {
    let numbers = |key: &str| -> anyhow::Result<Vec<f64>> {
        let list = model.get(key).and_then(Value::as_array).with_context(|| format!("the model has no `{key}`"))?;
        list.iter().map(|number| number.as_f64().with_context(|| format!("`{key}` holds something else than numbers"))).collect()
    };
    let (mean, scale, coefficients) = (numbers("mean")?, numbers("scale")?, numbers("coefficients")?);
    let intercept = model.get("intercept").and_then(Value::as_f64).context("the model has no `intercept`")?;
    let mut score = Score { hits: 0, held_out: 0 };
    for (row, line) in data.lines().skip(1).enumerate().filter(|(row, _)| row % 4 == 3) {
        let values: Vec<f64> = line.split(',').map(str::parse).collect::<Result<_, _>>().with_context(|| format!("row {row}"))?;
        let (target, features) = values.split_last().with_context(|| format!("row {row} is empty"))?;
        anyhow::ensure!(
            features.len() == mean.len() && mean.len() == scale.len() && scale.len() == coefficients.len(),
            "row {row} and the model do not fit together"
        );
        let sum: f64 = features.iter().zip(&mean).zip(&scale).zip(&coefficients).map(|(((x, mean), scale), weight)| (x - mean) / scale * weight).sum();
        score.held_out = score.held_out.saturating_add(1);
        if (sum + intercept > 0.0) == (*target > 0.5) {
            score.hits = score.hits.saturating_add(1);
        }
    }
    Ok(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_row_is_judged() {
        let model = serde_json::json!({"mean": [1.0], "scale": [2.0], "coefficients": [3.0], "intercept": 0.5});
        let data = "8,1,a,b\n0,0\n0,0\n0,0\n5,1\n0,0\n0,0\n0,0\n-5,1\n";
        assert_eq!(judge(data, &model).unwrap(), Score { hits: 1, held_out: 2 });
        assert!(judge("h\n0\n0\n0\n1,2,1\n", &model).is_err(), "a row of another width");
        assert!(judge(data, &serde_json::json!({})).is_err());
    }
}
