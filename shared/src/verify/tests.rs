//! Fixtures that are not as they should be.

use ::safetensors::tensor::{Dtype, TensorView};

use super::*;

/// Cases with these tensors of ones.
fn cases(tensors: &[(&str, &[usize])]) -> Cases {
    let ones = |shape: &[usize]| 1f32.to_le_bytes().repeat(shape.iter().product());
    let bytes: Vec<_> = tensors.iter().map(|(name, shape)| (*name, shape.to_vec(), ones(shape))).collect();
    let views =
        bytes.iter().map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let file = ::safetensors::serialize(views, None).unwrap();
    Cases::read(&Files::from([("cases.safetensors".to_owned(), file)])).unwrap()
}

#[test]
fn what_nothing_was_compared_with_has_failed() {
    let mut cases = cases(&[("input", &[2]), ("known", &[2]), ("more.known", &[1]), ("unknown", &[1])]);
    let (numbers, shape) = cases.numbers("input").unwrap();
    cases.compare_numbers("known", &numbers, &shape, NETWORK).unwrap();
    cases.leave("more.");
    assert!(cases.has("unknown"), "asking whether it is there compares nothing");
    let rows = cases.into_rows();
    let told: Vec<_> = rows.iter().map(|row| (row.tensor.as_str(), row.passed())).collect();
    assert_eq!(told, [("known", true), ("unknown", false)]);
}

#[test]
fn a_missing_tensor_has_no_shape() {
    let error = cases(&[]).numbers("x").unwrap_err().to_string();
    assert_eq!(error, "tensor `x` is missing");
}
