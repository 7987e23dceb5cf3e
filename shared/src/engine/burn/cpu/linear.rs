//! Linear maps.

use ::burn::backend::TensorMetadata;

use super::matmul::{Before, Matrix, Threads, product};
use super::norm::sum_rows;
use super::{Array, Kernel, parallel};

/// `x · Wᵀ + b`: x `[…, in]`, W by its [`Rows`], b `[out]` to `[…, out]`.
#[derive(Debug, Clone)]
pub struct Linear(pub Rows);

/// What the rows of a linear map's weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// `[in, out]`, which is faster by far with few rows of x.
    Inputs,
    /// `[out, in]`, as it is stored.
    Outputs,
}

/// Rows of x below which they are not worth sharing out among threads.
const FEW: usize = 64;

impl Kernel<3> for Linear {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let weight = self.weight(weight);
        let [input, output] = weight.shape();
        let rows = x.data().len() / input;
        let mut y = vec![0.0; rows * output];
        share(&mut y, output, rows, |start, y, threads| {
            let left = Matrix::new(&x.data()[start * input..], y.len() / output, input);
            y.chunks_exact_mut(output).for_each(|y| y.copy_from_slice(bias.data()));
            product(y, output, Before::Add, (1.0, left, weight), threads);
        });
        let mut shape = x.0.shape();
        let last = shape.num_dims() - 1;
        shape[last] = output;
        (Array::new(y, shape), vec![])
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Array; 3],
        _: &[f32],
        gradient: &Array,
        wanted: [bool; 3],
    ) -> [Option<Array>; 3] {
        let [input, output] = self.weight(weight).shape();
        let rows = x.data().len() / input;
        let dy = gradient.data();
        let dx = wanted[0].then(|| {
            let mut dx = vec![0.0; x.data().len()];
            let right = self.weight(weight).transpose();
            share(&mut dx, input, rows, |start, dx, threads| {
                let left = Matrix::new(&dy[start * output..], dx.len() / input, output);
                product(dx, input, Before::Replace, (1.0, left, right), threads);
            });
            x.like(dx)
        });
        let dweight = wanted[1].then(|| {
            let partial = parallel::map(dy.len(), parallel::runs(dy.len(), rows), |(start, rows)| {
                let mut dweight = vec![0.0; output * input];
                let x = Matrix::new(&x.data()[start * input..], rows, input);
                let dy = Matrix::new(&dy[start * output..], rows, output);
                let (columns, left, right) = match self.0 {
                    Rows::Inputs => (output, x, dy),
                    Rows::Outputs => (input, dy, x),
                };
                product(&mut dweight, columns, Before::Replace, (1.0, left.transpose(), right), Threads::One);
                dweight
            });
            weight.like(add_up(partial))
        });
        [dx, dweight, wanted[2].then(|| bias.like(sum_rows(dy, output)))]
    }
}

impl Linear {
    /// `[in, out]`
    fn weight<'a>(&self, weight: &'a Array) -> Matrix<'a> {
        let [rows, columns] = weight.shape();
        let weight = Matrix::new(weight.data(), rows, columns);
        match self.0 {
            Rows::Inputs => weight,
            Rows::Outputs => weight.transpose(),
        }
    }
}

/// Calls `f` with runs of the rows of `y`, each with the number of its first row.
fn share(y: &mut [f32], columns: usize, rows: usize, f: impl Fn(usize, &mut [f32], Threads) + Sync + Send) {
    let work = if rows < FEW { 0 } else { y.len() };
    let run = rows.div_ceil(parallel::pieces(work)).max(1);
    let tasks: Vec<_> = y.chunks_mut(run * columns).enumerate().collect();
    let threads = if tasks.len() > 1 { Threads::One } else { Threads::All };
    parallel::map(work, tasks, |(i, y): (usize, &mut [f32])| f(i * run, y, threads));
}

/// The sum of several vectors.
pub fn add_up(partial: Vec<Vec<f32>>) -> Vec<f32> {
    let mut partial = partial.into_iter();
    let mut total = partial.next().unwrap_or_default();
    for other in partial {
        total.iter_mut().zip(other).for_each(|(total, other)| *total += other);
    }
    total
}
