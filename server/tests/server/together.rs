//! Jobs that step together, and take turns.

use kosmosg::denoise::DenoiseSettings;
use kosmosg::protocol::JobEvent;

use crate::support::{Command, STEPS, Server, Setup, condition, denoise, denoise_from, settings, state_of, with_loras};

/// A server whose worker has the jobs 0, 1 and 2 before it, of which the first has taken two steps.
async fn three_together() -> (Server, Vec<String>) {
    let server = Setup { seats: 3, ..Setup::default() }.start().await;
    let mut ids = vec![server.submit(&denoise(0)).await.id];
    server.steps(1);
    server.until_in_step(2).await;
    for seed in [1, 2] {
        ids.push(server.submit(&denoise(seed)).await.id);
    }
    server.steps(1);
    server.until_in_step(3).await;
    (server, ids)
}

async fn all_done(server: &Server, ids: &[String]) {
    for id in ids {
        let last = server.events(id).await.pop();
        assert!(matches!(last, Some((_, JobEvent::Done { .. }))), "{last:?}");
    }
}

/// A server in the second of 25 steps of the job 0, with the job 1 of five steps in line, which asks for these LoRAs.
async fn short_after_long(loras: &[(&str, f32)]) -> (Server, [String; 2]) {
    let of = |seed, steps| denoise_from(condition(), state_of(DenoiseSettings { steps, ..settings(seed) }));
    let server = Setup::default().start().await;
    let long = server.submit(&of(0, 25)).await.id;
    server.steps(1);
    server.until_in_step(2).await;
    let short = server.submit(&with_loras(of(1, 5), loras)).await.id;
    (server, [long, short])
}

#[tokio::test]
async fn jobs_join_and_leave_between_steps() {
    let (server, ids) = three_together().await;
    server.steps(3);
    all_done(&server, &ids).await;
    assert_eq!(*server.together.lock().unwrap(), [vec![0], vec![0], vec![0, 1, 2], vec![1, 2], vec![1, 2]]);
}

#[tokio::test]
async fn when_too_many_at_once_fail_fewer_work() {
    for command in [Command::OutOfMemory, Command::Panic] {
        let (server, ids) = three_together().await;
        server.command(command);
        server.steps(1 + 2 * STEPS);
        all_done(&server, &ids).await;
        let alone = [vec![0], vec![0], vec![0], vec![1], vec![1], vec![1], vec![2], vec![2], vec![2]];
        assert_eq!(*server.together.lock().unwrap(), alone);
        assert_eq!(server.released(), 1, "the memory was given back");
    }
}

#[tokio::test]
async fn a_job_that_fails_alone_fails_alone() {
    let (server, ids) = three_together().await;
    server.command(Command::OutOfMemory);
    server.command(Command::OutOfMemory);
    server.steps(2 * STEPS);
    let last = server.events(&ids[0]).await.pop();
    assert!(matches!(last, Some((_, JobEvent::Failed { .. }))), "{last:?}");
    all_done(&server, &ids[1..]).await;
}

#[tokio::test]
async fn a_long_job_lets_short_ones_pass() {
    // Those of another model, too, if only after a longer turn, which here is none.
    for loras in [&[][..], &[("wool", 1.0)]] {
        let (server, [first, second]) = short_after_long(loras).await;
        server.steps(29);
        all_done(&server, &[first, second]).await;
        let expected: Vec<_> =
            [(0, 10), (1, 5), (0, 15)].iter().flat_map(|&(seed, steps)| vec![vec![seed]; steps]).collect();
        assert_eq!(*server.together.lock().unwrap(), expected, "{loras:?}");
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_lets_others_pass_does_not_come_back() {
    let (server, [first, second]) = short_after_long(&[]).await;
    server.steps(10);
    server.until_in_step(12).await;
    server.delete(&format!("/api/jobs/{first}")).await;
    assert_eq!(server.events(&first).await.pop().unwrap().1, JobEvent::Cancelled);
    server.steps(4);
    all_done(&server, &[second]).await;
    let third = server.submit(&denoise(2)).await.id;
    server.steps(STEPS);
    all_done(&server, &[third]).await;
}
