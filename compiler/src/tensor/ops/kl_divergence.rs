//! The divergence of a student from its teacher (Hinton et al. 2015).

use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `weight * T² * sum over rows of KL(softmax(teacher / T) || softmax(logits / T))`, as a `(1, 1)` variable, and the sum in nats
    /// without weight and `T²`.
    ///
    /// `logits` and `teacher` are `(n, outputs)`. The factor `T²` keeps gradients of one size at all temperatures.
    ///
    /// # Panics
    /// If `teacher` has another length than `logits`.
    pub fn kl_divergence(&mut self, logits: Var, teacher: &[f32], temperature: f32, weight: f32) -> (Var, f64) {
        let (n, outputs) = self.shape(logits);
        assert_eq!(teacher.len(), n * outputs, "teacher's logits for each of the student's");
        let mut slopes = self.buffer(n * outputs);
        let scale = f64::from(temperature);
        let mut nats = 0.0;
        let rows = self.value(logits).chunks_exact(outputs).zip(teacher.chunks_exact(outputs));
        for ((student, teacher), slopes) in rows.zip(slopes.chunks_exact_mut(outputs)) {
            let log_sum = |row: &[f32]| {
                let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = row.iter().map(|x| (f64::from(x - top) / scale).exp()).sum();
                f64::from(top) / scale + sum.ln()
            };
            let (student_sum, teacher_sum) = (log_sum(student), log_sum(teacher));
            for ((s, t), slope) in student.iter().zip(teacher).zip(slopes) {
                let (log_s, log_t) = (f64::from(*s) / scale - student_sum, f64::from(*t) / scale - teacher_sum);
                nats += log_t.exp() * (log_t - log_s);
                // d KL / d logit = (p_student - p_teacher) / T, times T².
                *slope = ((log_s.exp() - log_t.exp()) * scale) as f32 * weight;
            }
        }
        let mut value = self.buffer(1);
        value[0] = (nats * scale * scale) as f32 * weight;
        let loss = self.push(1, 1, value);
        let slopes = self.push(n, outputs, slopes);
        self.note(KlDivergence { logits, slopes, loss });
        (loss, nats)
    }
}

struct KlDivergence {
    logits: Var,
    slopes: Var,
    loss: Var,
}

impl Op for KlDivergence {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(seed) = pass.take(self.loss) else { return };
        let (mut to, write) = pass.open(self.logits);
        let mut slopes = pass.buffer(to.len());
        slopes.iter_mut().zip(pass.value(self.slopes)).for_each(|(to, slope)| *to = slope * seed[0]);
        write.store(&mut to, &slopes);
        pass.recycle(slopes);
        pass.recycle(seed);
        pass.close(self.logits, to);
    }
}
