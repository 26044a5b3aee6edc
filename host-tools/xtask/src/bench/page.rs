//! compiler/BENCH.md: one section a command, each rewritten by its own and left alone by the others.

use std::fs;

use anyhow::{Context as _, Result};

use crate::repo;

const INTRODUCTION: &str = "# Training, measured\n\n\
    Each section is written by the command that it names, on the machine and the day that it names.\n";

/// Puts `body` under `title`, in place of what stood there.
pub fn replace_section(title: &str, body: &str) -> Result<()> {
    let path = repo::root().join("compiler/BENCH.md");
    let page = fs::read_to_string(&path).unwrap_or_default();
    let draft = path.with_extension("draft");
    fs::write(&draft, with_section(&page, title, body))
        .with_context(|| format!("failed to write {}", draft.display()))?;
    fs::rename(&draft, &path)?;
    eprintln!("written to {}", path.display());
    Ok(())
}

fn with_section(page: &str, title: &str, body: &str) -> String {
    let mut sections: Vec<(&str, &str)> = page
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .map(|(t, b)| (t, b.trim()))
        .collect();
    match sections.iter_mut().find(|(other, _)| *other == title) {
        Some(section) => section.1 = body.trim(),
        None => sections.push((title, body.trim())),
    }
    sections.sort_by_key(|(title, _)| std::cmp::Reverse(*title));
    let sections = sections.iter().map(|(title, body)| format!("\n## {title}\n\n{body}\n"));
    INTRODUCTION.chars().chain(sections.collect::<String>().chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = with_section("", "Training", "old");
        let page = with_section(&page, "Matrix products", "table\n\n| a |");
        let page = with_section(&page, "Training", "new\n");
        assert_eq!(page, format!("{INTRODUCTION}\n## Training\n\nnew\n\n## Matrix products\n\ntable\n\n| a |\n"));
    }
}
