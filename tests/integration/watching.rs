//! Dashboard, rules and alerts ask for nothing that a running replica does not tell: each name, label and value of theirs
//! is in a real scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::world::{LOAD, WORK, World, nameless};

/// A series' labels: of each metric, the values that each label has.
type Scrape = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What an expression asks for.
#[derive(Debug, Default)]
struct Asked {
    /// Each selector: the metric, and for each matcher its label and value.
    selectors: Vec<(String, Vec<(String, String)>)>,
    /// The labels that its aggregations keep.
    by: BTreeSet<String>,
    /// Some aggregation keeps all.
    plain: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Sign(char),
}

fn tokens(expr: &str) -> Vec<Token> {
    let mut chars = expr.chars().peekable();
    let mut found = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => found.push(Token::Text(chars.by_ref().take_while(|c| *c != '"').collect())),
            // Ranges hold durations only.
            '[' => drop(chars.by_ref().take_while(|c| *c != ']').count()),
            c if c.is_ascii_alphanumeric() || "_:".contains(c) => {
                let mut name = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "_:.".contains(*c)) {
                    name.push(c);
                }
                found.push(Token::Name(name));
            }
            c if c.is_whitespace() => {}
            c => found.push(Token::Sign(c)),
        }
    }
    found
}

impl Asked {
    fn read(expr: &str) -> Self {
        let tokens = tokens(expr);
        let mut asked = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            let (token, next) = (&tokens[at], tokens.get(at + 1));
            at += 1;
            let Token::Name(name) = token else { continue };
            let until = |sign: char, from: usize| {
                from + tokens[from..].iter().position(|token| *token == Token::Sign(sign)).unwrap()
            };
            match (name.as_str(), next) {
                ("by" | "on", Some(Token::Sign('('))) => {
                    let end = until(')', at);
                    asked.by.extend(tokens[at..end].iter().filter_map(|token| match token {
                        Token::Name(label) => Some(label.clone()),
                        Token::Text(_) | Token::Sign(_) => None,
                    }));
                    at = end;
                }
                ("without" | "ignoring", _) => panic!("{expr}: say which labels stay"),
                ("unless" | "or" | "and" | "bool", _) => {}
                // A function or an aggregation.
                (_, Some(Token::Sign('('))) => asked.plain |= name == "sum" || name == "count",
                (_, Some(Token::Sign('{'))) => {
                    let end = until('}', at);
                    let matchers = tokens[at + 1..end].split(|token| *token == Token::Sign(','));
                    let matcher = |part: &[Token]| match (part.first(), part.last()) {
                        (Some(Token::Name(label)), Some(Token::Text(value))) => (label.clone(), value.clone()),
                        _ => panic!("{expr}: {part:?} is no matcher"),
                    };
                    asked.selectors.push((name.clone(), matchers.map(matcher).collect()));
                    at = end;
                }
                _ if name.starts_with(|c: char| c.is_ascii_digit()) => {}
                // An aggregation whose labels come first: `sum by (…) (…)`.
                (_, Some(Token::Name(word))) if word == "by" => {}
                _ => asked.selectors.push((name.clone(), Vec::new())),
            }
        }
        asked
    }

    /// Everything that it asks for and that is not there.
    fn missing(&self, scrape: &Scrape) -> Vec<String> {
        let mut missing = Vec::new();
        for (metric, matchers) in &self.selectors {
            let Some(labels) = scrape.get(metric) else {
                missing.push(format!("there is no metric {metric}"));
                continue;
            };
            for label in self.by.iter().filter(|label| !labels.contains_key(*label)) {
                missing.push(format!("{metric} has no label {label}"));
            }
            for (label, value) in matchers {
                match labels.get(label) {
                    None => missing.push(format!("{metric} has no label {label}")),
                    Some(_) if value == "$pool" => {}
                    Some(known) => {
                        let unknown = value.split('|').filter(|value| !known.contains(*value));
                        missing.extend(unknown.map(|value| format!("{metric} is never told with {label}=\"{value}\"")));
                    }
                }
            }
        }
        missing
    }
}

fn scraped(text: &str) -> Scrape {
    let mut scrape = Scrape::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let metric = scrape.entry(name.to_owned()).or_default();
        for pair in labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            metric.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    scrape
}

/// The labels that a text puts in, between braces: `{{pool}}` of a legend, `{{ $labels.pool }}` of an alert.
fn put_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("{{").skip(1).filter_map(|rest| {
        let inner = rest.split("}}").next()?.trim();
        let inner = inner.split(' ').next()?;
        (!inner.starts_with("$value")).then(|| inner.trim_start_matches("$labels."))
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What the dashboard and the rules ask for, with the text that shows it.
fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/enlist.json")).unwrap();
    let rules: Value = serde_norway::from_str(&read("deploy/prometheus/rules.yml")).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((text(&target["expr"]), text(&target["legendFormat"])));
        }
    }
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        found.push((text(&rule["expr"]), text(&rule["annotations"]["summary"])));
    }
    found
}

/// What the recording rules make, as if it were scraped: the labels are those that stand first in its name.
fn recorded(scrape: &mut Scrape) {
    let rules: Value = serde_norway::from_str(&read("deploy/prometheus/rules.yml")).unwrap();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let Some(name) = rule["record"].as_str() else { continue };
        let asked = Asked::read(rule["expr"].as_str().unwrap());
        let kept: BTreeSet<&str> = asked.by.iter().map(String::as_str).filter(|label| *label != "le").collect();
        let said: BTreeSet<&str> = name.split(':').next().unwrap().split('_').collect();
        assert_eq!(kept, said, "{name}");
        let labels = scrape[&asked.selectors[0].0].clone();
        scrape.insert(name.to_owned(), labels.into_iter().filter(|(label, _)| kept.contains(label.as_str())).collect());
    }
}

#[tokio::test]
async fn dashboard_and_rules_ask_only_for_what_a_replica_tells() {
    let hosts = "[pools.edge]\nprovider = \"static\"\nhosts = [{ id = \"edge-1\" }]\n";
    let world = World::new(&format!("{LOAD}{WORK}{hosts}")).await;
    let child = world.child().await;
    world.send("load", &nameless("c-1")).await;
    world.settled().await;
    let (status, text) = child.page("/metrics").await;
    assert_eq!(status, 200);
    let mut scrape = scraped(&text);
    recorded(&mut scrape);
    let expressions = expressions();
    assert!(expressions.len() > 40, "{}", expressions.len());
    let mut mistakes = Vec::new();
    for (expr, shown) in &expressions {
        let asked = Asked::read(expr);
        assert!(!asked.selectors.is_empty(), "{expr} asks for nothing");
        mistakes.extend(asked.missing(&scrape).into_iter().map(|what| format!("{what}, in {expr}")));
        let of_metric =
            |label: &str| scrape.get(&asked.selectors[0].0).is_some_and(|labels| labels.contains_key(label));
        for label in put_in(shown) {
            // A scrape adds `instance`, and an aggregation takes it away.
            let there = if asked.by.is_empty() && !asked.plain {
                label == "instance" || of_metric(label)
            } else {
                asked.by.contains(label)
            };
            if !there {
                mistakes.push(format!("{shown:?} shows {label}, which is not a label of {expr}"));
            }
        }
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn what_is_not_told_is_noticed() {
    let scrape = scraped("# HELP a b\na_total{pool=\"x\",verb=\"provision\"} 0\nb 1\n");
    let missing = |expr: &str| Asked::read(expr).missing(&scrape).len();
    assert_eq!(
        missing(r#"sum by (pool) (rate(a_total{verb="provision", pool=~"$pool"}[5m])) / 2 > 0 or vector(0)"#),
        0
    );
    assert_eq!(missing("count(b) or vector(0)"), 0);
    assert_eq!(missing("sum by (zone) (rate(a_total[5m])) unless c"), 2, "a label and a metric");
    assert_eq!(missing(r#"a_total{verb=~"provision|termite", size="1"}"#), 2);
    assert_eq!(missing("histogram_quantile(0.9, sum by (le) (b))"), 1);
    assert_eq!(
        put_in("{{pool}} of {{ $labels.verb }}: {{ $value | humanizePercentage }}").collect::<Vec<_>>(),
        ["pool", "verb"]
    );
}
