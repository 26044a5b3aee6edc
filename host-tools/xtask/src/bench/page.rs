//! The pages of results: one section a command, each rewritten by its own and left alone by the others.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::repo;

/// A page of sections.
pub struct Page {
    /// From the repository's root.
    path: &'static str,
    /// What a new page begins with.
    introduction: &'static str,
}

/// What training and generation on the host are measured at.
pub const HOST: Page = Page {
    path: "compiler/BENCH.md",
    introduction: "# Training, measured\n\n\
        Each section is written by the command that it names, on the machine and the day that it names.\n",
};

/// What was counted on the emulated boards; `bench device` writes its introduction.
pub const BOARDS: Page = Page { path: "boards/BENCH.md", introduction: "# Instructions, counted\n" };

impl Page {
    fn path(&self) -> PathBuf {
        repo::root().join(self.path)
    }

    fn read(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_else(|_| self.introduction.to_owned())
    }

    fn write(&self, text: &str) -> Result<()> {
        let (path, draft) = (self.path(), self.path().with_extension("draft"));
        fs::write(&draft, text).with_context(|| format!("failed to write {}", draft.display()))?;
        fs::rename(&draft, &path)?;
        eprintln!("written to {}", path.display());
        Ok(())
    }

    /// What stands under `title`; empty where there is nothing yet.
    pub fn section(&self, title: &str) -> String {
        let page = self.read();
        sections(&page).find(|(other, _)| *other == title).map_or(String::new(), |(_, body)| body.to_owned())
    }

    /// Puts `body` under `title`, in place of what stood there, or at the end.
    pub fn replace_section(&self, title: &str, body: &str) -> Result<()> {
        self.write(&with_section(&self.read(), title, body))
    }

    /// Puts `front` in place of the introduction and of the sections that it has too.
    pub fn replace_front(&self, front: &str) -> Result<()> {
        self.write(&with_front(&self.read(), front))
    }
}

/// Titles and what stands under them.
fn sections(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).map(|(title, body)| (title, body.trim()))
}

fn with_section(page: &str, title: &str, body: &str) -> String {
    let mut sections: Vec<(&str, &str)> = sections(page).collect();
    match sections.iter_mut().find(|(other, _)| *other == title) {
        Some(section) => section.1 = body.trim(),
        None => sections.push((title, body.trim())),
    }
    let introduction = page.split("\n## ").next().unwrap_or_default().trim();
    let sections = sections.iter().map(|(title, body)| format!("\n## {title}\n\n{body}\n"));
    format!("{introduction}\n{}", sections.collect::<String>())
}

fn with_front(page: &str, front: &str) -> String {
    let is_new = |title: &str| sections(front).any(|(other, _)| other == title);
    let kept = sections(page).filter(|(title, _)| !is_new(title));
    kept.fold(format!("{}\n", front.trim_end()), |page, (title, body)| with_section(&page, title, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = with_section("# Page\n", "Training", "old");
        let page = with_section(&page, "Matrix products", "table\n\n| a |");
        let page = with_section(&page, "Training", "new\n");
        assert_eq!(page, "# Page\n\n## Training\n\nnew\n\n## Matrix products\n\ntable\n\n| a |\n");
        let page = with_front(&page, "# Front\n\n## Tokens\n\nmany\n\n## Training\n\nnewer\n");
        assert_eq!(
            page,
            "# Front\n\n## Tokens\n\nmany\n\n## Training\n\nnewer\n\n## Matrix products\n\ntable\n\n| a |\n"
        );
    }
}
