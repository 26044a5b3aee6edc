//! Gradients with the activations of one layer at a time (Chen et al. 2016, with a checkpoint a layer).
//!
//! ```text
//! forward:   embed ── layer ── layer ── … ── head and loss     keep what goes into each layer, forget the rest
//! backward:  head and loss, then each layer from the last on:  run it again, go back through it
//! ```
//! A layer runs twice, the head once. Dropout draws the same masks both times, from a key that is kept with the layer's input.
//! Layers' inputs are stored as the recipe says; in 16 bits, a layer runs again from rounded ones.
//! Where they are not, and there is no encoder-decoder, every sum is made in the same order as without recomputation: the gradients have the same bits.

use super::parameters::{LayerParams, StackParams};
use super::{Batch, Transformer, View};
use crate::data::Example;
use crate::model::{LossOptions, LossSums, Pass};
use crate::tensor::gemm::Write;
use crate::tensor::{Buffer, Dtype, Graph, Saved, Var};

/// What goes into a layer.
struct Kept<T> {
    x: T,
    dropout_key: u64,
}

/// A stack between its embedding and its end.
struct Stage<'a> {
    model: &'a Transformer,
    stack: &'a StackParams,
    batch: &'a Batch,
    /// The encoder's output, for a decoder that has one.
    memory: Option<&'a [f32]>,
    tokens: Vec<&'a [siskin_runtime::TokenId]>,
    dropout: f32,
    /// What layers' inputs are stored as.
    dtype: Dtype,
}

/// As [`Pass::accumulate`], keeping the input of each layer only.
pub(super) fn accumulate(
    model: &Transformer,
    mut pass: Pass<'_>,
    examples: &[Example],
    options: LossOptions,
) -> LossSums {
    let batch = &Batch::of(examples, model.hooks.n_virtual());
    let inputs = || examples.iter().map(|example| example.inputs.as_slice()).collect();
    let LossOptions { dropout, activations_dtype: dtype, .. } = options;
    let stage = |stack, memory, tokens| Stage { model, stack, batch, memory, tokens, dropout, dtype };
    let (Some(encoder), Some(_)) = (&model.params.encoder, &model.params.decoder) else {
        let only = stage(model.last_stack(), None, inputs());
        let (kept, x) = only.forward(&mut pass);
        let (dx, sums) = only.backward_from_loss(&mut pass, examples, &x, options);
        pass.tape.recycle(x.x);
        only.backward(&mut pass, kept, dx);
        return sums;
    };
    let encoder = stage(encoder, None, inputs());
    let (encoder_kept, encoder_x) = encoder.forward(&mut pass);
    let memory = pass.run(encoder_x.dropout_key, |graph| {
        let x = graph.input(batch.inputs.n_rows(), model.architecture.dim, &encoder_x.x);
        let memory = model.final_norm(graph, x, encoder.stack);
        keep(graph, memory)
    });
    let outputs = examples.iter().map(|example| example.decoder_inputs.as_slice()).collect();
    let decoder = stage(model.last_stack(), Some(&memory), outputs);
    let (decoder_kept, decoder_x) = decoder.forward(&mut pass);
    let (dx, sums) = decoder.backward_from_loss(&mut pass, examples, &decoder_x, options);
    let dmemory = decoder.backward(&mut pass, decoder_kept, dx);
    let dx = pass.run(encoder_x.dropout_key, |graph| {
        let x = graph.input(batch.inputs.n_rows(), model.architecture.dim, &encoder_x.x);
        let memory = model.final_norm(graph, x, encoder.stack);
        graph.backward(memory, &dmemory);
        keep_grad(graph, x)
    });
    encoder.backward(&mut pass, encoder_kept, dx);
    for buffer in [decoder_x.x, encoder_x.x, dmemory, memory] {
        pass.tape.recycle(buffer);
    }
    sums
}

impl Stage<'_> {
    fn n_rows(&self) -> usize {
        let n_virtual = self.model.hooks.n_virtual();
        self.tokens.iter().map(|tokens| n_virtual + tokens.len()).sum()
    }

    fn embed(&self, graph: &mut Graph<'_>) -> Var {
        self.model.embed(graph, self.tokens.iter().copied(), self.dropout)
    }

    /// Puts a layer's input and the encoder's output on the tape and runs the layer: gives all three.
    fn layer(&self, graph: &mut Graph<'_>, x: &[f32], layer: &LayerParams) -> (Var, Option<Var>, Var) {
        let dim = self.model.architecture.dim;
        let x = graph.input(self.n_rows(), dim, x);
        let memory = self.memory.map(|memory| graph.input(self.batch.inputs.n_rows(), dim, memory));
        let view: View<'_> = match memory {
            Some(memory) => self.batch.output_view(memory, self.dropout),
            None => self.model.input_view(self.batch, self.dropout),
        };
        (x, memory, self.model.layer(graph, x, layer, self.stack, &view))
    }

    /// What goes into the embedding, into each layer, and what comes out of the last.
    fn forward(&self, pass: &mut Pass<'_>) -> (Vec<Kept<Saved>>, Kept<Buffer>) {
        let start = pass.dropout_key;
        let mut kept = vec![Kept { x: Saved::Whole(Buffer::default()), dropout_key: start }];
        let embed = |graph: &mut Graph<'_>| {
            let x = self.embed(graph);
            Kept { x: keep(graph, x), dropout_key: graph.dropout_key() }
        };
        let mut next = pass.run(start, embed);
        for layer in &self.stack.layers {
            let out = pass.run(next.dropout_key, |graph| {
                let (.., out) = self.layer(graph, &next.x, layer);
                Kept { x: keep(graph, out), dropout_key: graph.dropout_key() }
            });
            let Kept { x, dropout_key } = std::mem::replace(&mut next, out);
            kept.push(Kept { x: pass.tape.save(x, self.dtype), dropout_key });
        }
        pass.dropout_key = next.dropout_key;
        (kept, next)
    }

    /// Runs what comes after the last layer and goes back through it: the gradient of its input, and the sums of the loss.
    fn backward_from_loss(
        &self,
        pass: &mut Pass<'_>,
        examples: &[Example],
        x: &Kept<Buffer>,
        options: LossOptions,
    ) -> (Buffer, LossSums) {
        pass.run(x.dropout_key, |graph| {
            let x = graph.input(self.n_rows(), self.model.architecture.dim, &x.x);
            let hidden = self.model.final_norm(graph, x, self.stack);
            let (loss, sums) = self.model.loss_of(graph, hidden, examples, options);
            graph.backward(loss, &[1.0]);
            (keep_grad(graph, x), sums)
        })
    }

    /// Goes back from the gradient of the last layer's output through the embedding; gives the gradient of the encoder's output.
    fn backward(&self, pass: &mut Pass<'_>, mut kept: Vec<Kept<Saved>>, mut dx: Buffer) -> Buffer {
        let mut dmemory = pass.tape.buffer(self.memory.map_or(0, <[f32]>::len));
        dmemory.fill(0.0);
        for layer in self.stack.layers.iter().rev() {
            let Some(Kept { x, dropout_key }) = kept.pop() else { break };
            let (x, dout) = (pass.tape.restore(x), dx);
            dx = pass.run(dropout_key, |graph| {
                let (input, memory, out) = self.layer(graph, &x, layer);
                graph.backward(out, &dout);
                if let Some(grad) = memory.and_then(|memory| graph.grad(memory)) {
                    Write::Add.store(&mut dmemory, grad);
                }
                keep_grad(graph, input)
            });
            pass.tape.recycle(dout);
            pass.tape.recycle(x);
        }
        if let Some(Kept { dropout_key, .. }) = kept.pop() {
            pass.run(dropout_key, |graph| {
                let x = self.embed(graph);
                graph.backward(x, &dx);
            });
        }
        pass.tape.recycle(dx);
        dmemory
    }
}

/// The numbers of a variable, in a buffer that outlives the tape's next use.
fn keep(graph: &mut Graph<'_>, var: Var) -> Buffer {
    let mut kept = graph.buffer(graph.value(var).len());
    kept.copy_from_slice(graph.value(var));
    kept
}

/// As [`keep`], the gradient; zeros where nothing depends on the variable.
fn keep_grad(graph: &mut Graph<'_>, var: Var) -> Buffer {
    let mut kept = graph.buffer(graph.value(var).len());
    match graph.grad(var) {
        Some(grad) => kept.copy_from_slice(grad),
        None => kept.fill(0.0),
    }
    kept
}
