//! Why a configuration is refused, in one line for the log and at length for a person.
//!
//! Every refusal names the file, the line, the column, the key and the remedy. What the file says
//! appears only escaped.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::text;

/// Most problems of one file that are shown at length; the rest is a number.
const SHOWN_MAX: usize = 50;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{}: {} ({})", show(.path), explain(.source), remedy(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is something at that path, but no file.
    #[error("{}: {kind}, not a file (name a regular file)", show(.path))]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The file is longer than any configuration.
    #[error("{}: longer than {} (is this the right file?)", show(.path), super::quantity::write_size(*.max))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// The file is not text.
    #[error("{}:{line}:{column}: not UTF-8 text (save the file as UTF-8)", show(.path))]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where the first byte is that is none, from 1.
        line: usize,
        /// Its column, in characters from 1.
        column: usize,
    },
    /// The text says something that cannot be.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// This host refuses a key that no text says: its default, or the command line's.
    #[error("{place}{what} ({remedy})")]
    Unsaid {
        /// The file that could say it, escaped, with `: ` behind it; empty if there is none.
        place: String,
        /// Key, value, cause.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Error {
    /// At length, for standard error: each problem begins with `echod: ` and has its line underlined.
    /// Without colours, and without a newline at the end.
    pub fn render(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.render(),
            other => format!("echod: {other}"),
        }
    }
}

/// A path may hold anything but NUL, so it is escaped like what a file says.
fn show(path: &Path) -> String {
    text::escape(&path.to_string_lossy())
}

/// The kernel's words without the number behind them.
fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().into(),
        None => text::escape(&error.to_string()),
    }
}

/// What helps against it.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "name another with --config, or put it back",
        io::ErrorKind::PermissionDenied => "let the daemon's user read it: chmod or chgrp",
        _ => "name a file that can be read",
    }
}

/// One thing that is wrong in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The bytes to underline.
    pub(super) span: Range<usize>,
    /// What is wrong: key, value, cause. Already escaped.
    pub(super) what: String,
    /// What to write instead.
    pub(super) remedy: String,
}

/// A text and everything that is wrong with it, in the order of the file.
#[derive(Debug)]
pub struct Refusal {
    path: PathBuf,
    text: String,
    problems: Vec<Problem>,
    total: usize,
}

impl Refusal {
    /// Problems are put in order, and named once where the same place was found twice.
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        problems.dedup_by(|one, other| one.span == other.span);
        let total = problems.len();
        problems.truncate(SHOWN_MAX);
        Self {
            path: path.into(),
            text: text.into(),
            problems,
            total,
        }
    }

    fn render(&self) -> String {
        let renderer = Renderer::plain();
        let mut rendered: Vec<String> = self
            .problems
            .iter()
            .map(|problem| self.render_one(&renderer, problem))
            .collect();
        if self.total > self.problems.len() {
            rendered.push(format!(
                "echod: {} more of them",
                self.total - self.problems.len()
            ));
        }
        rendered.join("\n\n")
    }

    fn render_one(&self, renderer: &Renderer, problem: &Problem) -> String {
        let (line, column) = text::position(&self.text, problem.span.start);
        let excerpt = text::excerpt(&self.text, &problem.span);
        // The place is in the title: the excerpt may be cut or escaped, and its columns are not the file's.
        let title = format!("{}:{line}:{column}: {}", show(&self.path), problem.what);
        let snippet = Snippet::source(excerpt.line)
            .line_start(line)
            .annotation(AnnotationKind::Primary.span(excerpt.span));
        let group = Level::ERROR
            .with_name("echod")
            .primary_title(title)
            .element(snippet)
            .element(Level::HELP.message(problem.remedy.as_str()));
        renderer.render(&[group])
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = show(&self.path);
        let Some(first) = self.problems.first() else {
            return write!(formatter, "{path}: refused");
        };
        let (line, column) = text::position(&self.text, first.span.start);
        write!(
            formatter,
            "{path}:{line}:{column}: {} ({})",
            first.what, first.remedy
        )?;
        match self.total - 1 {
            0 => Ok(()),
            1 => write!(formatter, "; 1 more problem"),
            more => write!(formatter, "; {more} more problems"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(span: Range<usize>, what: &str) -> Problem {
        Problem {
            span,
            what: what.into(),
            remedy: "mend it".into(),
        }
    }

    #[test]
    fn one_line_names_the_first_place_and_how_many_more_there_are() {
        let refusal = Refusal::new(
            Path::new("/etc/x.toml"),
            "a = 1\nb = 2\nc = 3\n",
            vec![
                problem(12..13, "third"),
                problem(6..7, "second"),
                problem(6..7, "again"),
                problem(0..1, "first"),
            ],
        );
        assert_eq!(
            refusal.to_string(),
            "/etc/x.toml:1:1: first (mend it); 2 more problems"
        );
        assert_eq!(refusal.total, 3);
    }

    #[test]
    fn at_length_no_more_than_a_screen_of_screens_is_shown() {
        let text = "x\n".repeat(SHOWN_MAX + 1);
        let problems = |count: usize| (0..count).map(|at| problem(at * 2..at * 2 + 1, "x"));
        let render =
            |count| Refusal::new(Path::new("f"), &text, problems(count).collect()).render();
        assert!(!render(SHOWN_MAX).contains("more of them"));
        assert!(render(SHOWN_MAX + 1).ends_with("echod: 1 more of them"));
    }

    #[test]
    fn a_path_is_escaped_as_well() {
        let error = Error::NotAFile {
            path: "/tmp/\u{1b}[31m".into(),
            kind: "a directory",
        };
        assert_eq!(
            error.to_string(),
            "/tmp/\\u{1b}[31m: a directory, not a file (name a regular file)"
        );
    }
}
