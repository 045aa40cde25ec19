//! The same figure, measured once in each turn.

/// Figures in the order of their turns.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    pub fn new(values: Vec<f64>) -> Sample {
        Sample { values }
    }

    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[len / 2],
            len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
        }
    }

    pub fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn max(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// This by the other, turn by turn: what slows the whole machine for a while slows both.
    pub fn ratio(&self, other: &Sample) -> Sample {
        Sample::new(self.values.iter().zip(&other.values).map(|(mine, others)| mine / others).collect())
    }
}
