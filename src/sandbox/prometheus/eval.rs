//! What a query is worth at an instant.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::QueryError;
use super::functions;
use super::parse::{Aggregation, Expr, Grouping, Operator, Selector};
use super::series::{Series, Source};

/// How far back the present value of a series may lie.
pub(super) const LOOKBACK: i64 = 5 * 60_000;

pub(super) type Labels = BTreeMap<String, String>;

/// A value of a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: f64,
}

/// What an expression is worth.
pub(super) enum Worth {
    Scalar(f64),
    Text(String),
    Vector(Vec<Sample>),
    /// The samples of a range, and its beginning and end.
    Matrix(Vec<Series>, i64, i64),
}

impl Worth {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Worth::Scalar(_) => "scalar",
            Worth::Text(_) => "string",
            Worth::Vector(_) => "instant vector",
            Worth::Matrix(..) => "range vector",
        }
    }
}

/// What a query looks at.
pub(super) struct Context<'a> {
    pub(super) source: &'a dyn Source,
    /// Milliseconds of API time.
    pub(super) at: i64,
    /// When the newest sample was taken, in the same way.
    pub(super) newest: i64,
}

impl Context<'_> {
    pub(super) fn eval(&self, expr: &Expr) -> Result<Worth, QueryError> {
        match expr {
            Expr::Number(number) => Ok(Worth::Scalar(*number)),
            Expr::Text(text) => Ok(Worth::Text(text.clone())),
            Expr::Selector(selector) => self.select(selector),
            Expr::Call { function, args } => functions::call(self, function, args),
            Expr::Aggregate { operator, grouping, of } => match self.eval(of)? {
                Worth::Vector(samples) => Ok(Worth::Vector(aggregate(*operator, grouping, &samples))),
                other => Err(QueryError::mistyped("an aggregation", "instant vector", other.kind())),
            },
            Expr::Negated(inner) => match self.eval(inner)? {
                Worth::Scalar(number) => Ok(Worth::Scalar(-number)),
                Worth::Vector(samples) => Ok(Worth::Vector(functions::each(samples, |value| -value))),
                other => Err(QueryError::mistyped("unary -", "scalar or instant vector", other.kind())),
            },
            Expr::Binary { operator, returns_bool, matching, left, right } => {
                let operation = Operation { operator: *operator, returns_bool: *returns_bool, matching };
                operation.of(self.eval(left)?, self.eval(right)?)
            }
        }
    }

    fn select(&self, selector: &Selector) -> Result<Worth, QueryError> {
        let to = self.at - selector.offset;
        let from = to - selector.range.unwrap_or(LOOKBACK);
        let taken = to.min(self.newest);
        let series = self.source.select(&selector.matchers, from, taken)?;
        if selector.range.is_some() {
            return Ok(Worth::Matrix(series, from, to));
        }
        let present = series.into_iter().filter(|series| series.ended.is_none_or(|ended| ended > to));
        let samples = present.filter_map(|series| {
            let (_, value) = *series.samples.last()?;
            Some(Sample { labels: series.labels, value })
        });
        Ok(Worth::Vector(samples.collect()))
    }
}

impl Grouping {
    /// The labels that count. The name of the metric never does, unless it is asked for.
    fn of(&self, labels: &Labels) -> Labels {
        let kept = labels.iter().filter(|(label, _)| match self {
            Grouping::Only(labels) => labels.contains(label),
            Grouping::Without(labels) => *label != "__name__" && !labels.contains(label),
        });
        kept.map(|(label, value)| (label.clone(), value.clone())).collect()
    }
}

fn aggregate(operator: Aggregation, grouping: &Grouping, samples: &[Sample]) -> Vec<Sample> {
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        groups.entry(grouping.of(&sample.labels)).or_default().push(sample.value);
    }
    let value = |values: &[f64]| match operator {
        Aggregation::Sum => values.iter().sum(),
        Aggregation::Avg => values.iter().sum::<f64>() / values.len() as f64,
        // NaN gives way to any number.
        Aggregation::Max => values.iter().copied().fold(f64::NAN, f64::max),
        Aggregation::Min => values.iter().copied().fold(f64::NAN, f64::min),
        Aggregation::Count => values.len() as f64,
    };
    groups.into_iter().map(|(labels, values)| Sample { labels, value: value(&values) }).collect()
}

struct Operation<'a> {
    operator: Operator,
    returns_bool: bool,
    matching: &'a Grouping,
}

impl Operation<'_> {
    fn of(&self, left: Worth, right: Worth) -> Result<Worth, QueryError> {
        match (left, right) {
            (Worth::Scalar(left), Worth::Scalar(right)) if !self.operator.is_of_sets() => {
                if self.operator.compares() && !self.returns_bool {
                    let message = "comparisons between scalars must use BOOL modifier";
                    return Err(QueryError::syntax(message.to_owned()));
                }
                Ok(Worth::Scalar(self.calculate(left, right)))
            }
            (Worth::Vector(left), Worth::Scalar(right)) if !self.operator.is_of_sets() => {
                let kept =
                    left.into_iter().filter_map(|sample| self.with(sample.value, right, sample.value, sample.labels));
                Ok(Worth::Vector(kept.collect()))
            }
            (Worth::Scalar(left), Worth::Vector(right)) if !self.operator.is_of_sets() => {
                let kept =
                    right.into_iter().filter_map(|sample| self.with(left, sample.value, sample.value, sample.labels));
                Ok(Worth::Vector(kept.collect()))
            }
            (Worth::Vector(left), Worth::Vector(right)) if self.operator.is_of_sets() => {
                Ok(Worth::Vector(self.of_sets(left, right)))
            }
            (Worth::Vector(left), Worth::Vector(right)) => self.of_vectors(left, right).map(Worth::Vector),
            (left, right) => {
                let message = format!("binary operation of {} and {} is not possible", left.kind(), right.kind());
                Err(QueryError::syntax(message))
            }
        }
    }

    /// The result for one pair; `None` when a comparison filters it out. What is kept is `kept`.
    fn with(&self, left: f64, right: f64, kept: f64, mut labels: Labels) -> Option<Sample> {
        let result = self.calculate(left, right);
        if self.operator.compares() && !self.returns_bool {
            return (result == 1.0).then_some(Sample { labels, value: kept });
        }
        labels.remove("__name__");
        Some(Sample { labels, value: result })
    }

    fn of_vectors(&self, left: Vec<Sample>, right: Vec<Sample>) -> Result<Vec<Sample>, QueryError> {
        let many = |side: &str| {
            QueryError::execution(format!(
                "found duplicate series for the match group on the {side} hand-side of the operation; many-to-many matching not allowed: matching labels must be unique on one side"
            ))
        };
        let mut partners: BTreeMap<Labels, f64> = BTreeMap::new();
        for sample in right {
            if partners.insert(self.matching.of(&sample.labels), sample.value).is_some() {
                return Err(many("right"));
            }
        }
        let mut results: BTreeMap<Labels, Option<Sample>> = BTreeMap::new();
        for sample in left {
            let group = self.matching.of(&sample.labels);
            let Some(partner) = partners.get(&group) else { continue };
            let mut labels = group.clone();
            if let Some(name) = sample.labels.get("__name__") {
                labels.insert("__name__".to_owned(), name.clone());
            }
            match results.entry(group) {
                Entry::Occupied(_) => return Err(many("left")),
                Entry::Vacant(entry) => drop(entry.insert(self.with(sample.value, *partner, sample.value, labels))),
            }
        }
        Ok(results.into_values().flatten().collect())
    }

    fn of_sets(&self, left: Vec<Sample>, right: Vec<Sample>) -> Vec<Sample> {
        let group = |sample: &Sample| self.matching.of(&sample.labels);
        let groups = |samples: &[Sample]| samples.iter().map(group).collect::<std::collections::BTreeSet<_>>();
        match self.operator {
            Operator::Or => {
                let there = groups(&left);
                let others = right.into_iter().filter(|sample| !there.contains(&group(sample)));
                left.into_iter().chain(others).collect()
            }
            operator => {
                let there = groups(&right);
                let wanted = operator == Operator::And;
                left.into_iter().filter(|sample| there.contains(&group(sample)) == wanted).collect()
            }
        }
    }

    /// Comparisons give 1 or 0.
    fn calculate(&self, left: f64, right: f64) -> f64 {
        let truth = |holds: bool| f64::from(u8::from(holds));
        match self.operator {
            Operator::Add => left + right,
            Operator::Subtract => left - right,
            Operator::Multiply => left * right,
            Operator::Divide => left / right,
            Operator::Modulo => left % right,
            Operator::Power => left.powf(right),
            Operator::Equal => truth(left == right),
            Operator::NotEqual => truth(left != right),
            Operator::Less => truth(left < right),
            Operator::LessOrEqual => truth(left <= right),
            Operator::Greater => truth(left > right),
            Operator::GreaterOrEqual => truth(left >= right),
            // Only vectors have set operations, and these do not come here.
            Operator::And | Operator::Or | Operator::Unless => f64::NAN,
        }
    }
}
