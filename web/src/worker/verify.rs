//! This worker's engine against the public implementations' numbers, and its kernels against the processor's.

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
    Ok(rows.into_iter().map(finite).collect())
}

/// Compares the kernels of this worker's device with the processor, each as exactly as it must be to be used;
/// `impossible` ones too, which the device has not what it takes for.
pub async fn kernels(impossible: bool) -> Result<Vec<Row>, Failure> {
    let (device, _) = device::open().await?;
    let kernels = match impossible {
        true => device.compare_impossible_kernels(device::KERNEL_TOLERANCE).await?,
        false => device.compare_kernels(device::KERNEL_TOLERANCE).await?,
    };
    let row = |(kernel, deviation): (&str, f32)| Row::new(kernel, deviation.into(), device::KERNEL_TOLERANCE.into());
    Ok(kernels.into_iter().map(row).map(finite).collect())
}

/// JSON has no infinity.
fn finite(row: Row) -> Row {
    Row { error: row.error.min(f64::MAX), ..row }
}

fn failure(message: &str) -> Failure {
    Failure { fault: Fault::Device, message: message.to_owned() }
}
