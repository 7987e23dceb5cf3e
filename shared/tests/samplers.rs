//! The samplers against diffusers, with a made-up network: `tests/fixtures/samplers.json`, made by `samplers.py` beside it.

use std::collections::BTreeMap;
use std::path::Path;

use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::sampler::{MAX_STEPS, Sampler, SamplerError, SamplerKind};
use kosmosg::schedule::{NoiseSchedule, SchedulerConfig};
use serde::Deserialize;

/// ‖ours − theirs‖ / ‖theirs‖ after a whole run; theirs is f32 arithmetic.
const RUN_TOLERANCE: f64 = 5e-6;

#[derive(Deserialize)]
struct Fixture {
    noise: Vec<f32>,
    models: BTreeMap<String, Model>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Model {
    config: SchedulerConfig,
    alphas_cumprod: BTreeMap<usize, f64>,
}

#[derive(Deserialize)]
struct Run {
    model: String,
    sampler: SamplerKind,
    steps: usize,
    latents: Vec<f64>,
    timesteps: Option<Vec<f32>>,
}

impl Fixture {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/samplers.json");
        let json = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn schedule(&self, model: &str) -> NoiseSchedule {
        NoiseSchedule::from_config(&self.models[model].config).expect("the fixture has valid schedules")
    }

    fn start(&self, sampler: SamplerKind, steps: usize, schedule: &NoiseSchedule) -> DenoiseState {
        let (channels, height, width) = (2, 2, 2);
        let settings = DenoiseSettings { sampler, steps, guidance: 1.0, seed: 0, picture: 0, channels, height, width };
        DenoiseState::from_noise(settings, schedule, &self.noise).expect("the settings fit the fixture's noise")
    }
}

/// The fixture's network.
fn network(state: &DenoiseState) -> Vec<f32> {
    let t = f64::from(state.timestep());
    let predict = |x: f32| {
        let x = f64::from(x);
        (0.8 * x.tanh() + 0.3 * (3.0 * x + t / 100.0).sin()) as f32
    };
    state.model_input().into_iter().map(predict).collect()
}

fn finish(mut state: DenoiseState) -> Vec<f32> {
    while !state.is_done() {
        state.advance(&network(&state)).expect("the network is finite");
    }
    state.latents().to_vec()
}

#[test]
fn noise_schedules_are_those_of_diffusers_to_the_bit() {
    for (name, model) in Fixture::read().models {
        let schedule = NoiseSchedule::from_config(&model.config).unwrap();
        assert_eq!(schedule.alphas_cumprod().len(), model.config.num_train_timesteps);
        for (timestep, expected) in model.alphas_cumprod {
            assert_eq!(schedule.alphas_cumprod()[timestep], expected, "{name} at {timestep}");
        }
    }
}

#[test]
fn runs_agree_with_diffusers() {
    let fixture = Fixture::read();
    assert!(fixture.runs.len() > 100, "the fixture has only {} runs", fixture.runs.len());
    for run in &fixture.runs {
        let what = format!("{} steps of {} on {}", run.steps, run.sampler, run.model);
        let schedule = fixture.schedule(&run.model);
        if let Some(expected) = &run.timesteps {
            let timesteps: Vec<f32> = Sampler::new(run.sampler, run.steps, &schedule).unwrap().timesteps().collect();
            assert_eq!(&timesteps, expected, "{what}");
        }
        let latents = finish(fixture.start(run.sampler, run.steps, &schedule));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut latents.iter().zip(&run.latents).map(|(&ours, theirs)| f64::from(ours) - theirs))
            / norm(&mut run.latents.iter().copied());
        assert!(error < RUN_TOLERANCE, "{what}: relative error {error:.1e}");
    }
}

#[test]
fn a_run_stopped_at_any_step_goes_on_with_the_same_bits() {
    let fixture = Fixture::read();
    for model in ["sd15", "v", "leading"] {
        let schedule = fixture.schedule(model);
        for (sampler, steps) in SamplerKind::ALL.into_iter().flat_map(|sampler| [(sampler, 1), (sampler, 7)]) {
            let mut state = fixture.start(sampler, steps, &schedule);
            let uninterrupted = finish(state.clone());
            loop {
                let json = serde_json::to_string(&state).unwrap();
                let resumed: DenoiseState = serde_json::from_str(&json).unwrap();
                assert_eq!(resumed, state, "{sampler} at step {}", state.step());
                assert_eq!(finish(resumed), uninterrupted, "{sampler} from step {}", state.step());
                if state.is_done() {
                    break;
                }
                state.advance(&network(&state)).unwrap();
            }
        }
    }
}

#[test]
fn any_number_of_steps_works_or_says_why_not() {
    let fixture = Fixture::read();
    for model in fixture.models.keys() {
        let schedule = fixture.schedule(model);
        let train = schedule.config().num_train_timesteps;
        for sampler in SamplerKind::ALL {
            for steps in (1..=30).chain([99, 333, train - 2, train - 1, train]) {
                match Sampler::new(sampler, steps, &schedule) {
                    Ok(table) => {
                        let evaluations = steps + usize::from(sampler == SamplerKind::Pndm && steps > 1);
                        assert_eq!(table.evaluations(), evaluations, "{steps} steps of {sampler} on {model}");
                        let latents = finish(fixture.start(sampler, steps, &schedule));
                        assert!(latents.iter().all(|x| x.is_finite()), "{steps} steps of {sampler} on {model}");
                    }
                    Err(error) => {
                        assert!(steps >= train - 2, "{model}: {error}");
                        assert!(error.to_string().contains("take fewer steps"), "{error}");
                    }
                }
            }
            for steps in [0, MAX_STEPS + 1] {
                let error = Sampler::new(sampler, steps, &schedule).unwrap_err();
                assert!(matches!(error, SamplerError::Steps { .. }), "{error}");
            }
        }
    }
}
