//! A plan as one page that needs nothing else: tables and plots, light or dark as the reader's system is.

use std::fmt::Write as _;

use super::report::{Metric, Outcome, Prediction, Quantiles, Report};
use super::svg::{self, escape};
use super::text::{latency, number, one_line, schedule, versions};
use crate::cli::units::{count, percent, plural, span};

/// The page. Writing to a String cannot fail.
pub fn page(report: &Report) -> String {
    let subject = &report.rollout;
    let title = escape(&format!("Plan of {}", subject.name));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        include_str!("page.css")
    );
    let strategy = if subject.strategy == "canary" { "canary" } else { "blue-green" };
    let steps =
        if subject.steps.is_empty() { String::new() } else { format!(", {}", plural(subject.steps.len(), "step")) };
    let _ = writeln!(
        page,
        "<p class=\"faint\">Rollout {}/{}: {strategy}, {}{steps}. Written by tidegate {} from the manifests, before anything is \
         deployed.</p>",
        escape(&subject.namespace),
        escape(&subject.name),
        plural(subject.replicas.max(0) as usize, "pod"),
        env!("CARGO_PKG_VERSION")
    );
    assumptions(report, &mut page);
    for prediction in &report.releases {
        release(report, prediction, &mut page);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn assumptions(report: &Report, page: &mut String) {
    let assumed = &report.assumptions;
    page.push_str("<dl>\n");
    let mut item = |term: &str, text: &str| {
        let _ = writeln!(page, "<dt>{term}</dt><dd>{text}</dd>");
    };
    item(
        "requests",
        &format!(
            "{} a second to {}; {} of them fail and an answer takes {} as a rule",
            number(assumed.requests_per_second),
            escape(&assumed.target),
            percent(assumed.error_rate),
            latency(assumed.latency_seconds)
        ),
    );
    item("pods", &format!("ready after {}", span(assumed.ready_after_seconds)));
    item("Prometheus", &format!("scrapes every {}", span(assumed.scrape_interval_seconds)));
    item("people", &format!("promote what waits for them after {}", span(assumed.promote_after_seconds)));
    for answer in &assumed.answers {
        item(
            "<span class=\"assumedtext\">answers</span>",
            &format!(
                "good for {}/{} ({}): {} <code>{}</code>",
                escape(&answer.template),
                escape(&answer.metric),
                escape(&answer.provider),
                escape(&answer.why),
                escape(&one_line(&answer.asks))
            ),
        );
    }
    for note in &report.notes {
        item("note", &escape(note));
    }
    page.push_str("</dl>\n");
}

fn release(report: &Report, prediction: &Prediction, page: &mut String) {
    let class = match prediction.outcome {
        Outcome::Completed => "good",
        Outcome::RolledBack | Outcome::Stuck => "bad",
        Outcome::Waiting | Outcome::Unfinished => "unsure",
    };
    let name = escape(&prediction.release);
    let outcome = format!("{} after {}", prediction.outcome, span(prediction.seconds));
    let _ = writeln!(page, "<section>\n<h2>{name} <span class=\"verdict {class}\">{outcome}</span></h2>");
    if let Some(why) = &prediction.why {
        let _ = writeln!(page, "<p>{}</p>", escape(why));
    }
    let requests = &prediction.requests;
    let _ = writeln!(
        page,
        "<p>{} requests were sent and {} failed ({} would have failed anyway); the new version got {} and failed {}. A rolling \
         update would have failed {} in the same time and {} a minute from then on.</p>",
        count(requests.total),
        count(requests.failed),
        count(requests.failed_anyway),
        count(requests.new.requests),
        count(requests.new.failed),
        count(prediction.rolling_update.failed),
        count(prediction.rolling_update.failed_per_minute)
    );
    repeated(prediction, page);
    let (old, new) = versions(report);
    let (old, new) = (old.to_lowercase(), new.to_lowercase());
    let _ = writeln!(
        page,
        "<p class=\"legend faint\"><span class=\"old\">{old}</span><span class=\"new\">{new}</span>\
         <span class=\"other\">of experiments</span><span class=\"failed\">failed</span></p>"
    );
    page.push_str(&svg::plots(prediction, (&old, &new), &format!("{}: {outcome}", prediction.release)));
    rows(prediction, (&old, &new), page);
    for analysis in &prediction.analyses {
        let to = analysis.to.map_or_else(|| "its end".to_owned(), span);
        let _ = writeln!(
            page,
            "<p>Analysis {} from {} to {to}: {}</p>\n<dl>",
            escape(&analysis.place),
            span(analysis.from),
            escape(&analysis.phase)
        );
        for metric in &analysis.metrics {
            let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(&metric.name), described(metric));
        }
        page.push_str("</dl>\n");
    }
    page.push_str("</section>\n");
}

fn described(metric: &Metric) -> String {
    let mut text = escape(&schedule(metric));
    if !metric.asks.is_empty() {
        let _ = write!(text, "<br><code>{}</code>", escape(&one_line(&metric.asks)));
    }
    for (word, condition) in [("good if", &metric.success_condition), ("bad if", &metric.failure_condition)] {
        if let Some(condition) = condition {
            let _ = write!(text, "<br>{word} <code>{}</code>", escape(condition));
        }
    }
    if metric.assumed {
        text.push_str("<br><span class=\"assumedtext\">all answers are assumed to be good</span>");
    }
    if !metric.message.is_empty() {
        let _ = write!(text, "<br>{}", escape(&metric.message));
    }
    text
}

fn rows(prediction: &Prediction, (old, new): (&str, &str), page: &mut String) {
    let _ = writeln!(
        page,
        "<table>\n<tr><th></th><th>step</th><th>at</th><th>takes</th><th>weight</th><th>{old}</th><th>{new}</th><th>surge</th></tr>"
    );
    for row in &prediction.steps {
        let step = row.step.map_or_else(String::new, |step| (step + 1).to_string());
        let surge = if row.surge > 0 { format!("+{}", row.surge) } else { String::new() };
        let _ = writeln!(
            page,
            "<tr><td>{step}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{surge}</td></tr>",
            escape(&row.what),
            span(row.from),
            span(row.to - row.from),
            percent(row.weight),
            row.old_pods.ready,
            row.new_pods.ready
        );
    }
    page.push_str("</table>\n");
}

fn repeated(prediction: &Prediction, page: &mut String) {
    let Some(repeated) = &prediction.repeated else { return };
    let [low, high] = repeated.rolled_back_between;
    let _ = writeln!(
        page,
        "<p>Of {} repetitions {} were released and {} rolled back (between {} and {} with 95% confidence).</p>",
        count(repeated.runs),
        count(repeated.completed),
        count(repeated.rolled_back),
        percent(low),
        percent(high)
    );
    page.push_str("<table>\n<tr><th></th><th></th><th>10%</th><th>half</th><th>90%</th><th>most</th></tr>\n");
    let mut line = |what: &str, quantiles: &Option<Quantiles>, shown: &dyn Fn(f64) -> String| {
        if let Some(Quantiles { p10, p50, p90, max }) = quantiles {
            let cells = [p10, p50, p90, max].map(|value| format!("<td>{}</td>", shown(*value)));
            let _ = writeln!(page, "<tr><td></td><td>{what}</td>{}</tr>", cells.concat());
        }
    };
    line("released after", &repeated.completed_seconds, &span);
    line("rolled back after", &repeated.rolled_back_seconds, &span);
    line("failed requests", &repeated.failed_requests, &|value| count(value as u64));
    page.push_str("</table>\n");
}
