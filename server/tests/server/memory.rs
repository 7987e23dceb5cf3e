//! Memory that runs out at any point of a job.

use kosmosg::engine::candle::CandleDevice;
use kosmosg::engine::candle::faults::Faults;
use kosmosg::picture::Picture;
use kosmosg::pipeline::Request;
use kosmosg::protocol::{ApiError, ErrorCode, GenerateSettings, JobEvent, JobRequest};

use crate::model::{job_of, request, server_on};
use crate::support::{Server, bytes_of};

/// How many of a job's operations fail, one at a time.
const FAULTS: usize = 24;
/// Decoded in tiles, in dB of PSNR, it is this much like the whole.
const ALIKE: f64 = 30.0;

/// A server whose memory runs out when it is told to.
fn server() -> (Server, Faults) {
    let device = CandleDevice::cpu();
    let faults = device.faults().clone();
    (server_on(device), faults)
}

fn job(settings: GenerateSettings) -> JobRequest {
    job_of("tiny", Request { settings: GenerateSettings { seed: 5, steps: Some(2), ..settings }, ..request() })
}

/// The picture's file, or why there is none.
async fn png(server: &Server, job: &JobRequest) -> Result<Vec<u8>, ApiError> {
    let id = server.submit(job).await.id;
    match server.events(&id).await.pop() {
        Some((_, JobEvent::Done { .. })) => {
            Ok(bytes_of(server.get(&format!("/api/jobs/{id}/result")).await).await.to_vec())
        }
        Some((_, JobEvent::Failed { error })) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn assert_out_of_memory(result: Result<Vec<u8>, ApiError>, operation: usize) {
    let error = result.expect_err(&format!("operation {operation} had no memory"));
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("not enough memory"), "operation {operation}: {error}");
}

#[tokio::test]
async fn wherever_it_runs_out_the_next_job_works() {
    let (server, faults) = server();
    let job = job(GenerateSettings::default());
    // From the first weight that is loaded to the last pixel.
    faults.set(usize::MAX);
    let undisturbed = png(&server, &job).await.unwrap();
    let operations = usize::MAX - faults.left();
    for index in 0..FAULTS {
        // A failure lets go of everything, so that the one after it is from the same beginning.
        faults.set_lasting(1);
        assert_out_of_memory(png(&server, &job).await, 1);
        let operation = 1 + index * (operations - 1) / (FAULTS - 1);
        faults.set_lasting(operation);
        assert_out_of_memory(png(&server, &job).await, operation);
        assert_eq!(faults.left(), 0);
        faults.set(0);
        assert!(png(&server, &job).await.unwrap() == undisturbed, "after operation {operation}");
    }
}

#[tokio::test]
async fn parts_that_have_no_room_beside_each_other_take_turns() {
    let (server, faults) = server();
    let job = job(GenerateSettings::default());
    let undisturbed = png(&server, &job).await.unwrap();
    faults.take_most();
    png(&server, &job).await.unwrap();
    let together = faults.take_most();
    // The most that one part needs alone is what it takes when there is hardly more room.
    let mut room = together - 1;
    for attempt in 0.. {
        faults.set_room(room);
        let result = png(&server, &job).await;
        let Ok(made) = result else {
            assert_out_of_memory(result, room);
            assert!(attempt > 1 && room < together * 3 / 4, "{room} of {together}");
            break;
        };
        assert!(made == undisturbed, "with room for {room} of {together}");
        room = room * 9 / 10;
    }
    faults.set_room(0);
    assert!(png(&server, &job).await.unwrap() == undisturbed);
}

#[tokio::test]
async fn a_picture_that_has_no_room_is_decoded_in_tiles() {
    let (server, faults) = server();
    let job = job(GenerateSettings { width: Some(1024), height: Some(16), ..GenerateSettings::default() });
    png(&server, &job).await.unwrap();
    faults.set(usize::MAX);
    let undisturbed = png(&server, &job).await.unwrap();
    let operations = usize::MAX - faults.left();
    faults.set(operations);
    let tiled = png(&server, &job).await.unwrap();
    assert_eq!(faults.left(), 0);
    assert_ne!(tiled, undisturbed);
    let psnr = Picture::decode(&tiled).unwrap().psnr(&Picture::decode(&undisturbed).unwrap());
    println!("{psnr:.1} dB");
    assert!(psnr >= ALIKE, "{psnr:.1} dB");
    assert!(png(&server, &job).await.unwrap() == undisturbed, "the next has its room again");
}
