//! What restricts the choice of a token beyond its logit.

use crate::TokenId;

/// Decides which tokens may come next, from those that came before.
///
/// `n_left` is always the number of tokens that can still be drawn, the next one included.
pub trait Constraint {
    /// At most how many tokens make the text whole.
    fn tokens_missing(&self) -> usize;

    /// Whether `token` may come next.
    fn allows(&self, token: TokenId, n_left: usize) -> bool;

    /// Sets the logit of every token that may not come next to minus infinity.
    fn restrict(&self, logits: &mut [f32], n_left: usize);

    /// Whether so few tokens may come next that it pays to ask which before their logits are computed: then all other logits are minus infinity
    /// from the start. It depends on the constraint alone.
    fn is_narrow(&self) -> bool {
        false
    }

    /// Where [`Constraint::is_narrow`], sets the logits of tokens that may come next to 0 and all others to minus infinity, and gives true.
    fn mark(&self, _logits: &mut [f32], _n_left: usize) -> bool {
        false
    }

    /// Goes on after `token`.
    fn advance(&mut self, token: TokenId, n_left: usize) -> Advance;
}

/// What a token did to a constrained text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It belongs to the text, which may go on.
    Open,
    /// It is the last of the text: nothing may follow.
    Last,
    /// It may not come here, and no other could be drawn; the text was whole without it.
    Whole,
    /// It may not come here, no other could be drawn, and the text is not whole.
    Stuck,
}

/// Lets every token pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unconstrained;

impl Constraint for Unconstrained {
    fn tokens_missing(&self) -> usize {
        0
    }

    fn allows(&self, _: TokenId, _: usize) -> bool {
        true
    }

    fn restrict(&self, _: &mut [f32], _: usize) {}

    fn advance(&mut self, _: TokenId, _: usize) -> Advance {
        Advance::Open
    }
}

/// No constraint where there is none.
impl<C: Constraint> Constraint for Option<C> {
    fn tokens_missing(&self) -> usize {
        self.as_ref().map_or(0, C::tokens_missing)
    }

    fn allows(&self, token: TokenId, n_left: usize) -> bool {
        self.as_ref().is_none_or(|constraint| constraint.allows(token, n_left))
    }

    fn restrict(&self, logits: &mut [f32], n_left: usize) {
        if let Some(constraint) = self {
            constraint.restrict(logits, n_left);
        }
    }

    fn is_narrow(&self) -> bool {
        self.as_ref().is_some_and(C::is_narrow)
    }

    fn mark(&self, logits: &mut [f32], n_left: usize) -> bool {
        self.as_ref().is_some_and(|constraint| constraint.mark(logits, n_left))
    }

    fn advance(&mut self, token: TokenId, n_left: usize) -> Advance {
        self.as_mut().map_or(Advance::Open, |constraint| constraint.advance(token, n_left))
    }
}
