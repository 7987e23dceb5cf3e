//! Matrix products on slices, by the `gemm` crate.

/// Numbers of a row that are copied before the next row's.
const AT_ONCE: usize = 32;

/// A matrix in a slice: `(row, column)` stands at `row · strides[0] + column · strides[1]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    numbers: &'a [f32],
    size: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A row-major matrix of `[rows, columns]`.
    ///
    /// # Panics
    /// If a number lies outside the slice.
    pub fn new(numbers: &'a [f32], size: [usize; 2]) -> Self {
        Self::strided(numbers, size, [size[1], 1])
    }

    /// # Panics
    /// If a number lies outside the slice.
    pub fn strided(numbers: &'a [f32], size: [usize; 2], strides: [usize; 2]) -> Self {
        check(numbers, size, strides);
        Self { numbers, size, strides }
    }

    /// Rows as columns.
    pub fn transpose(self) -> Self {
        let ([rows, columns], [down, right]) = (self.size, self.strides);
        Self { size: [columns, rows], strides: [right, down], ..self }
    }

    /// `count` rows from `start` on.
    pub fn rows(self, start: usize, count: usize) -> Self {
        Self::strided(&self.numbers[start * self.strides[0]..], [count, self.size[1]], self.strides)
    }

    /// Writes it to the rows of `out`, `row_stride` numbers apart.
    pub fn copy_to(self, out: &mut [f32], row_stride: usize) {
        let ([rows, columns], [down, right]) = (self.size, self.strides);
        // Of a transpose, a few lines of the cache are read again for each row.
        for start in (0..columns).step_by(AT_ONCE) {
            let count = AT_ONCE.min(columns - start);
            for row in 0..rows {
                let numbers = self.numbers[row * down + start * right..].iter().step_by(right);
                let out = &mut out[row * row_stride + start..][..count];
                out.iter_mut().zip(numbers).for_each(|(out, number)| *out = *number);
            }
        }
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }
}

/// `scale · left · right`, to be written somewhere.
#[derive(Debug)]
pub struct Product<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    scale: f32,
    threads: Threads,
}

/// How many threads compute a [`Product`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling one.
    One,
    /// All, where there are threads and the product is large.
    All,
}

/// What becomes of the numbers that stand where a [`Product`] is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

impl<'a> Product<'a> {
    /// `left · right` on the calling thread.
    ///
    /// # Panics
    /// If `left` does not have as many columns as `right` has rows.
    pub fn of(left: Matrix<'a>, right: Matrix<'a>) -> Self {
        assert_eq!(left.size[1], right.size[0], "a product of {:?} and {:?}", left.size, right.size);
        Self { left, right, scale: 1.0, threads: Threads::One }
    }

    /// This product times a number.
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same on so many threads.
    pub fn on(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// Writes the product's rows to `out`, `row_stride` numbers apart.
    ///
    /// # Panics
    /// If a number lies outside `out`.
    pub fn write(self, out: &mut [f32], row_stride: usize, before: Before) {
        let Self { left, right, scale, threads } = self;
        let ([rows, inner], [_, columns]) = (left.size, right.size);
        check(out, [rows, columns], [row_stride, 1]);
        assert!(rows <= 1 || row_stride >= columns, "rows of {columns} numbers, {row_stride} apart, overlap");
        let threads = match threads {
            #[cfg(feature = "threads")]
            Threads::All if rows * columns * inner > 1 << 21 => gemm::Parallelism::Rayon(0),
            _ => gemm::Parallelism::None,
        };
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
                before == Before::Add,
                left.numbers.as_ptr(),
                left.strides[1] as isize,
                left.strides[0] as isize,
                right.numbers.as_ptr(),
                right.strides[1] as isize,
                right.strides[0] as isize,
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
