//! The two layouts of rotary embedding, and the way from one to the other.

/// Reorders the rows of a query or key projection from interleaved to half-split rotation.
///
/// GGUF and llama2.c turn elements `2 i` and `2 i + 1` of a head together, Hugging Face elements `i` and `i + head_dim / 2`.
/// `rows` is `[n_heads * head_dim, row_len]`.
///
/// # Panics
/// If `rows` is not whole heads, or `head_dim` is odd.
pub(super) fn half_split_rows(rows: &[f32], head_dim: usize, row_len: usize) -> Vec<f32> {
    assert!(head_dim.is_multiple_of(2) && rows.len().is_multiple_of(head_dim * row_len), "whole heads of pairs");
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_dim * row_len) {
        for (part, pair_idx) in [0, 1].into_iter().flat_map(|part| (0..half).map(move |pair_idx| (part, pair_idx))) {
            let start = (2 * pair_idx + part) * row_len;
            out.extend_from_slice(&head[start..start + row_len]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::half_split_rows;

    #[test]
    fn even_rows_come_first_within_each_head() {
        let rows: Vec<f32> = (0..16).map(|value| value as f32).collect();
        let expected = [0., 1., 4., 5., 2., 3., 6., 7., 8., 9., 12., 13., 10., 11., 14., 15.];
        assert_eq!(half_split_rows(&rows, 4, 2), expected);
    }
}
