//! This worker's engine against the public implementations' numbers.

use kosmosg::engine::burn::Burn;
use kosmosg::verify::{Cases, Files, Form, RUN, Row, VerifyError, kosmosg, stable_diffusion};

use super::device;
use super::model::Failure;
use crate::messages::Fault;

/// Compares all single networks of a fixture.
pub async fn rows(files: Files) -> Result<Vec<Row>, Failure> {
    let (device, _) = device::open().await?;
    let compared = match Form::of(&files) {
        Some(Form::KosmosG) => kosmosg::<Burn>(&files, &device, RUN).await,
        Some(Form::StableDiffusion) => stable_diffusion::<Burn>(&files, &device, RUN, false).await,
        _ => return Err(failure("the files are no fixture with networks")),
    };
    let mut rows = compared.map(Cases::into_rows).map_err(|error: VerifyError| failure(&error.to_string()))?;
    let kernels = device.compare_kernels(device::KERNEL_TOLERANCE).await?;
    rows.extend(kernels.into_iter().map(|(kernel, deviation)| Row::new(kernel, deviation.into(), 1e-5)));
    // JSON has no infinity.
    let finite = |row: Row| Row { error: row.error.min(f64::MAX), ..row };
    Ok(rows.into_iter().map(finite).collect())
}

fn failure(message: &str) -> Failure {
    Failure { fault: Fault::Device, message: message.to_owned() }
}
