//! How fast a run goes and how long it will take.

/// The steps of a run on one device, timed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    steps: usize,
    step_seconds: f64,
    fastest_step_seconds: Option<f64>,
    first_step_seconds: f64,
    preview_seconds: f64,
    last_preview_seconds: f64,
}

/// Share of the time that previews may take of the time that steps take.
const PREVIEW_SHARE: f64 = 0.05;
/// Steps before a pace can be foretold: the first also makes the device ready.
const STEPS_BEFORE_PACE: usize = 2;
/// A first step that took so many times as long as the others is none of them.
const FIRST_STEP: f64 = 2.0;
/// Steps before the first preview; what there is before is noise.
const STEPS_BEFORE_PREVIEW: usize = 2;

impl Pace {
    /// A step took so long.
    pub fn step(&mut self, seconds: f64) {
        if self.steps == 0 {
            self.first_step_seconds = seconds;
        }
        self.steps(1, seconds);
        self.fastest_step_seconds = Some(self.fastest_step_seconds.map_or(seconds, |fastest| fastest.min(seconds)));
    }

    /// Several steps took so long together.
    pub fn steps(&mut self, steps: usize, seconds: f64) {
        self.steps += steps;
        self.step_seconds += seconds;
    }

    /// A preview took so long.
    pub fn preview(&mut self, seconds: f64) {
        self.preview_seconds += seconds;
        self.last_preview_seconds = seconds;
    }

    /// Whether a preview is due: with it, previews still take no more than their share.
    pub fn affords_preview(&self) -> bool {
        self.steps >= STEPS_BEFORE_PREVIEW
            && self.preview_seconds + self.last_preview_seconds <= PREVIEW_SHARE * self.step_seconds
    }

    /// Seconds that `steps` more will take; none before the first.
    pub fn seconds_for(&self, steps: usize) -> Option<f64> {
        let spent = self.step_seconds + self.preview_seconds;
        let mean = |seconds: f64, of: usize| seconds / of as f64;
        // The first step also makes the device ready, which is not done again.
        let rest = (self.steps > 1).then(|| mean(spent - self.first_step_seconds, self.steps - 1));
        let step = match rest {
            Some(rest) if self.first_step_seconds > FIRST_STEP * rest => rest,
            _ => mean(spent, self.steps),
        };
        (self.steps > 0).then_some(step * steps as f64)
    }

    /// Seconds that `steps` more will take if each is as fast as the fastest so far; none before that can be said.
    pub fn at_best(&self, steps: usize) -> Option<f64> {
        self.fastest_step_seconds.filter(|_| self.steps >= STEPS_BEFORE_PACE).map(|seconds| seconds * steps as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_keep_to_their_share() {
        let mut pace = Pace::default();
        let mut previews = 0;
        for _ in 0..100 {
            pace.step(0.1);
            if pace.affords_preview() {
                pace.preview(0.2);
                previews += 1;
            }
        }
        // The first one is made before its cost is known.
        assert!((2..=4).contains(&previews), "{previews}");
    }

    #[test]
    fn the_time_left_is_the_mean_of_the_steps_so_far() {
        let mut pace = Pace::default();
        assert_eq!(pace.seconds_for(10), None);
        pace.step(1.0);
        assert_eq!(pace.at_best(10), None);
        pace.step(3.0);
        assert_eq!(pace.seconds_for(10), Some(20.0));
        assert_eq!(pace.at_best(10), Some(10.0));
        let mut pace = Pace::default();
        pace.step(20.0);
        pace.step(1.0);
        assert_eq!(pace.seconds_for(10), Some(10.0), "the first step made the device ready");
    }
}
