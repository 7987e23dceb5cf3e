//! Matrix products of views, on the `gemm` crate.

use gemm::Parallelism;

/// A matrix in a slice: `(row, column)` stands at `row · strides[0] + column · strides[1]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    numbers: &'a [f32],
    size: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// If a number lies outside the slice.
    pub fn new(numbers: &'a [f32], size: [usize; 2], strides: [usize; 2]) -> Self {
        check(numbers, size, strides);
        Self { numbers, size, strides }
    }
}

/// `scale · a · b`, to be written somewhere.
pub struct Product<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    scale: f32,
    threads: Parallelism,
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub enum Start {
    Zero,
    /// The numbers that stand where it is written.
    Out,
}

impl<'a> Product<'a> {
    /// `a · b` on the calling thread.
    ///
    /// # Panics
    /// If `a` does not have as many columns as `b` has rows.
    pub fn of(a: Matrix<'a>, b: Matrix<'a>) -> Self {
        assert_eq!(a.size[1], b.size[0], "sizes {:?} and {:?}", a.size, b.size);
        Self { a, b, scale: 1.0, threads: Parallelism::None }
    }

    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    pub fn on_all_threads(self) -> Self {
        Self { threads: Parallelism::Rayon(0), ..self }
    }

    /// Writes the product's rows to `out`, `row_stride` numbers apart.
    ///
    /// # Panics
    /// If a number lies outside `out`.
    pub fn write(self, out: &mut [f32], row_stride: usize, start: Start) {
        let Self { a, b, scale, threads } = self;
        let ([rows, inner], [_, columns]) = (a.size, b.size);
        check(out, [rows, columns], [row_stride, 1]);
        assert!(rows <= 1 || row_stride >= columns, "rows of {columns} numbers, {row_stride} apart, overlap");
        // SAFETY: `check` has seen that every number of the three matrices lies within its slice, and those of `out` do
        // not overlap.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                inner,
                out.as_mut_ptr(),
                1,
                row_stride as isize,
                matches!(start, Start::Out),
                a.numbers.as_ptr(),
                a.strides[1] as isize,
                a.strides[0] as isize,
                b.numbers.as_ptr(),
                b.strides[1] as isize,
                b.strides[0] as isize,
                1.0,
                scale,
                false,
                false,
                false,
                threads,
            );
        }
    }
}

fn check(numbers: &[f32], size: [usize; 2], strides: [usize; 2]) {
    let last = (0..2).map(|dim| (size[dim].max(1) - 1) * strides[dim]).sum::<usize>();
    let empty = size.contains(&0);
    assert!(empty || last < numbers.len(), "{size:?} by {strides:?} does not fit {} numbers", numbers.len());
}
