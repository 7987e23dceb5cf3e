//! Matrix products on slices.

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix whose rows start `row_stride` numbers apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// Rows as columns.
    pub fn transpose(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    fn span(&self) -> usize {
        span(self.rows, self.columns, self.row_stride, self.column_stride)
    }
}

/// What becomes of the numbers that are in the place of a [`product`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// How many threads compute a [`product`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling one.
    One,
    /// All cores, where there are threads.
    All,
}

/// `scale · left · right` into `y`, whose rows start `row_stride` numbers apart.
pub fn product(
    y: &mut [f32],
    row_stride: usize,
    before: Before,
    (scale, left, right): (f32, Matrix, Matrix),
    threads: Threads,
) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    assert_eq!(k, right.rows, "inner sizes of a matrix product");
    assert!(span(m, n, row_stride, 1) <= y.len(), "product of {m} × {n} into {} numbers", y.len());
    assert!(row_stride >= n && left.span() <= left.data.len() && right.span() <= right.data.len());
    let threads = match threads {
        #[cfg(feature = "burn-native")]
        Threads::All if m * n * k > 1 << 21 => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: all three matrices lie within their slices, as asserted, and `y` is borrowed by nobody else.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            row_stride as isize,
            before == Before::Add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            threads,
        );
    }
}

/// How many numbers a matrix spans from its first to its last.
fn span(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}
