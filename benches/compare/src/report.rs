//! Figures as a table: medians, and how each server compares with one of them. Pure.

use crate::rounds::Results;
use crate::statistics::Summary;
use crate::workload::{Figures, Measure, Workload};

/// A workload's table in Markdown, and below it who could not take part. Ratios are to the server of that name.
pub fn section(workload: &Workload, results: &Results, baseline: &str) -> String {
    let mut text = format!("## {}\n\n{}.\n\n", workload.name, workload.about);
    text.push_str(&aligned(&table(workload, results, baseline)));
    for (name, why) in &results.unavailable {
        text.push_str(&format!("\n{name}: not available: {why}\n"));
    }
    text
}

/// The table's cells, its head first.
fn table(workload: &Workload, results: &Results, baseline: &str) -> Vec<Vec<String>> {
    let servers = &results.servers;
    let is_there = |measure: &Measure| {
        let mut runs = servers.iter().flat_map(|(_, rounds)| rounds).flatten();
        runs.any(|run| of(run, *measure).is_some())
    };
    let measures: Vec<Measure> = MEASURES.iter().copied().filter(is_there).collect();
    let mut head = vec!["server".to_owned()];
    for &measure in &measures {
        let (title, ratio) = titles(measure, workload);
        head.push(title);
        head.extend(ratio.map(str::to_owned));
    }
    let no_rounds = Vec::new();
    let base = servers.iter().find(|(name, _)| name == baseline);
    let base = base.map_or(&no_rounds, |(_, rounds)| rounds);
    let mut table = vec![head];
    for (name, rounds) in servers {
        let mut row = vec![name.clone()];
        for &measure in &measures {
            row.push(median(rounds, measure, workload));
            if titles(measure, workload).1.is_some() {
                row.push(match name == baseline {
                    true => "1".to_owned(),
                    false => ratio(rounds, base, measure),
                });
            }
        }
        table.push(row);
    }
    table
}

const MEASURES: &[Measure] = &[
    Measure::Rate,
    Measure::Cpu,
    Measure::User,
    Measure::Kernel,
    Measure::Opened,
    Measure::Used,
];

/// What stands above a measure, and above its ratio if it has one.
fn titles(measure: Measure, workload: &Workload) -> (String, Option<&'static str>) {
    let unit = workload.unit();
    match measure {
        Measure::Rate if unit == "MiB" => ("MiB/s".to_owned(), Some("rate ratio")),
        Measure::Rate => (format!("{unit}s/s"), Some("rate ratio")),
        Measure::Cpu => (format!("CPU µs/{unit}"), Some("CPU ratio")),
        Measure::User => (format!("user instr./{}", counted_by(unit)), None),
        Measure::Kernel => (format!("kernel instr./{}", counted_by(unit)), None),
        Measure::Opened => ("bytes/connection, silent".to_owned(), None),
        Measure::Used => ("bytes/connection, used".to_owned(), Some("used ratio")),
    }
}

/// Instructions of a MiB are too many to be looked at.
fn counted_by(unit: &str) -> &str {
    if unit == "MiB" { "KiB" } else { unit }
}

fn of(run: &Figures, measure: Measure) -> Option<f64> {
    run.iter()
        .find_map(|(one, figure)| (*one == measure).then_some(*figure))
}

fn median(rounds: &[Option<Figures>], measure: Measure, workload: &Workload) -> String {
    let scale = match measure {
        Measure::User | Measure::Kernel if workload.unit() == "MiB" => 1024.0,
        _ => 1.0,
    };
    let figures = rounds.iter().flatten().filter_map(|run| of(run, measure));
    Summary::of(figures).map_or_else(|| "-".to_owned(), |all| number(all.median / scale))
}

/// The median of the ratios within each round, and the middle half of them.
fn ratio(rounds: &[Option<Figures>], base: &[Option<Figures>], measure: Measure) -> String {
    let pairs = rounds.iter().zip(base);
    let ratios = pairs.filter_map(|(run, base)| {
        let base = of(base.as_ref()?, measure)?;
        Some(of(run.as_ref()?, measure)? / base).filter(|ratio| ratio.is_finite())
    });
    match Summary::of(ratios) {
        Some(Summary { low, median, high }) => format!("{median:.2} ({low:.2}-{high:.2})"),
        None => "-".to_owned(),
    }
}

/// Three digits or more, thousands apart.
fn number(figure: f64) -> String {
    if figure < 100.0 {
        return format!("{figure:.2}");
    }
    let digits = format!("{figure:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Cells as Markdown that reads well as text, too: names to the left, numbers to the right.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, row) in table.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(&match column {
                0 => format!("| {cell:<width$} |"),
                _ => format!(" {cell:>width$} |"),
            });
        }
        text.push('\n');
        if at == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(width + 1);
                text.push_str(&match column {
                    0 => format!("|{line}-|"),
                    _ => format!("{line}:|"),
                });
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rates: &[f64]) -> Vec<Option<Figures>> {
        let run = |rate: &f64| Some(vec![(Measure::Rate, *rate)]);
        rates.iter().map(run).collect()
    }

    #[test]
    fn drift_that_both_servers_share_is_not_in_the_ratio() {
        let results = Results {
            servers: vec![
                ("one".to_owned(), rates(&[1000.0, 2000.0, 3000.0])),
                ("two".to_owned(), rates(&[1500.0, 3000.0, 4500.0])),
            ],
            unavailable: vec![("three".to_owned(), "no such call".to_owned())],
            failures: Vec::new(),
        };
        let workload = Workload::named("stream").expect("a workload");
        let section = section(&workload, &results, "one");
        let (_, table) = section.split_once(".\n\n").expect("a sentence, a table");
        let expected = "\
            | server | MiB/s |       rate ratio |\n\
            |--------|------:|-----------------:|\n\
            | one    | 2,000 |                1 |\n\
            | two    | 3,000 | 1.50 (1.50-1.50) |\n\
            \n\
            three: not available: no such call\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_round_that_failed_is_left_out() {
        let mut broken = rates(&[1.0, 8.0]);
        broken[0] = None;
        assert_eq!(
            ratio(&broken, &rates(&[4.0, 4.0]), Measure::Rate),
            "2.00 (2.00-2.00)"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        for (figure, text) in [(0.5, "0.50"), (999.4, "999"), (1_234_567.0, "1,234,567")] {
            assert_eq!(number(figure), text);
        }
    }
}
