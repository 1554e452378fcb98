//! The explanation for people. Short however many volumes there are.

use std::fmt::{self, Write as _};

use bitts_api::{Kind, ObjectKey};
use bitts_binder::{Class, Group, Report, State, User};

use super::json::mode;

/// So many of anything are named.
const FEW: usize = 3;

/// What is printed.
pub(super) fn of(report: &Report, unread: &[String], colours: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = Page {
        out: &mut text,
        colours,
    }
    .report(report, unread);
    text
}

struct Page<'a> {
    out: &'a mut String,
    colours: bool,
}

impl Page<'_> {
    fn report(mut self, report: &Report, unread: &[String]) -> fmt::Result {
        let key = &report.object;
        let state = self.coloured(colour(report.state), report.state.code());
        let partner = match &report.partner {
            Some(partner) if report.state == State::Bound => format!(" to {}", object(partner)),
            Some(partner) => format!(" ({})", object(partner)),
            None => String::new(),
        };
        let subject = object(key);
        let (first, rest) = subject.split_at(1);
        writeln!(self.out, "{}{rest}: {state}{partner}", first.to_uppercase())?;
        if let Some(fact) = &report.waiting_for {
            writeln!(self.out, "  waits for  {}", fact.text)?;
        }
        for fact in &report.facts {
            writeln!(self.out, "  note       {}", fact.text)?;
        }
        if let Some(node) = &report.selected_node {
            writeln!(self.out, "  node       {node}, chosen by the scheduler")?;
        }
        self.pods(&report.pods)?;
        self.classes(&report.classes)?;
        self.groups(report)?;
        self.advice(report)?;
        for note in unread {
            writeln!(self.out, "\nNot complete: {note}")?;
        }
        Ok(())
    }

    fn pods(&mut self, pods: &[User]) -> fmt::Result {
        if pods.is_empty() {
            return Ok(());
        }
        let one = |pod: &User| match &pod.node {
            Some(node) => format!("{} on {node}", pod.name),
            None => format!("{} (no node)", pod.name),
        };
        let all: Vec<_> = pods.iter().map(one).collect();
        writeln!(self.out, "  pods       {}", few(&all))
    }

    fn classes(&mut self, classes: &[Class]) -> fmt::Result {
        for class in classes.iter().take(FEW) {
            let makes = if class.provisions {
                format!("{} makes volumes", class.provisioner)
            } else {
                format!("{} makes none", class.provisioner)
            };
            let default = if class.is_default { ", default" } else { "" };
            writeln!(
                self.out,
                "  class      {}: {}, {makes}{default}",
                class.name,
                mode(class.binding_mode)
            )?;
        }
        match classes.len().saturating_sub(FEW) {
            0 => Ok(()),
            more => writeln!(self.out, "  class      and {} more", number(more)),
        }
    }

    fn groups(&mut self, report: &Report) -> fmt::Result {
        let of_claim = report.object.kind == Kind::Claim;
        let what = if of_claim { "volume" } else { "claim" };
        if !report.serves.is_empty() {
            let names = few(&report.serves);
            writeln!(self.out, "\nWaiting claims that it would serve: {names}")?;
        }
        let total = report.candidates.iter().map(|group| group.count).sum();
        if total == 0 {
            if of_claim && report.state == State::Waiting {
                writeln!(self.out, "\nThere is no volume that could be looked at.")?;
            }
            return Ok(());
        }
        let title = if of_claim {
            "not given to it, by the first reason"
        } else {
            "without a volume that it does not serve, by the first reason"
        };
        writeln!(self.out, "\n{} {title}:", counted(total, what))?;
        let width = report
            .candidates
            .iter()
            .map(|g| number(g.count).len())
            .max();
        for group in &report.candidates {
            self.group(group, width.unwrap_or(0), of_claim)?;
        }
        Ok(())
    }

    fn group(&mut self, group: &Group, width: usize, of_claim: bool) -> fmt::Result {
        let only = match (group.only_reason, group.count) {
            _ if !of_claim => String::new(),
            (0, _) => " (and more is in the way)".into(),
            (only, all) if only == all => String::new(),
            (only, _) => format!(" (the only reason for {})", number(only)),
        };
        let reason = if of_claim {
            group.reason.to_string()
        } else {
            group.reason.code().replace('-', " ")
        };
        writeln!(
            self.out,
            "  {:>width$}  {reason}{only}",
            number(group.count)
        )?;
        let details = group.details();
        let indent = width + 4;
        for (detail, names) in details.iter().take(FEW) {
            writeln!(self.out, "{:indent$}  {}: {detail}", "", few(names))?;
        }
        match details.len().saturating_sub(FEW) {
            0 => Ok(()),
            _ => {
                let told: usize = details.iter().take(FEW).map(|(_, names)| names.len()).sum();
                let more = number(group.count - told);
                writeln!(self.out, "{:indent$}  and {more} more", "")
            }
        }
    }

    fn advice(&mut self, report: &Report) -> fmt::Result {
        let Some(next) = &report.next else {
            return Ok(());
        };
        let title = self.coloured("1", "Next:");
        writeln!(self.out, "\n{title} {}", next.text)?;
        if let Some(warning) = &next.warning {
            let title = self.coloured("31", "Careful:");
            writeln!(self.out, "{title} {warning}")?;
        }
        match &next.command {
            Some(command) => writeln!(self.out, "\n  {command}"),
            None => Ok(()),
        }
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn colour(state: State) -> &'static str {
    match state {
        state if state.is_fine() => "32",
        State::Lost | State::Failed => "31",
        _ => "33",
    }
}

fn object(key: &ObjectKey) -> String {
    match key.kind {
        Kind::Claim => format!("claim {key}"),
        _ => format!("volume {key}"),
    }
}

/// The first of them, and how many more there are.
fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(FEW)].join(", ");
    match names.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown} and {} more", number(more)),
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// With a comma every three digits.
fn number(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
