//! Right answers to all questions about scenes, as what networks learn to give.

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;

use crate::eval::question::Question;

/// For each scene the number of the right answer to each question, in order; none where it does not tell.
pub(super) type Answers = Vec<Vec<Option<usize>>>;

/// Cross-entropy of the scores of all answers to all questions, `[B, answers]`, summed over the questions that a scene
/// answers: `[1]`, the mean over the scenes.
pub(super) fn cross_entropy(scores: Tensor<Burn, 2>, answers: &Answers) -> Tensor<Burn, 1> {
    let [count, width] = scores.shape();
    // −1/B at each right answer.
    let mut right = vec![0.0; count * width];
    let (mut logarithms, mut start) = (Vec::new(), 0);
    for (question, number) in Question::all().zip(0..) {
        let length = question.answers();
        logarithms.push(scores.clone().narrow(1, start, length).log_softmax());
        for (row, answers) in answers.iter().enumerate() {
            let answer: Option<usize> = answers[number];
            answer.into_iter().for_each(|answer| right[row * width + start + answer] = -1.0 / count as f32);
        }
        start += length;
    }
    let right = Tensor::from_host(right, [count, width], &scores.device());
    (Tensor::cat(logarithms, 1) * right).reshape([count * width]).sum(0)
}
