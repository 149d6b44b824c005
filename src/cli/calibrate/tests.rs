use std::sync::{Arc, Mutex};

use clap::Parser;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;

use super::Calibrate;
use crate::cli::{lint, manifest};
use crate::providers::http::{HttpError, Request, Response, Transport};

const NOW: i64 = 1_750_000_000;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    calibrate: Calibrate,
}

/// Two pods that count 1,500 requests a minute each, of which three fail, and the queries that were asked.
struct Counters {
    /// Minutes that an answer can hold.
    most: i64,
    asked: Mutex<Vec<String>>,
}

impl Transport for Counters {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let form = format!("http://x/?{}", std::str::from_utf8(&request.body).unwrap());
        let form = crate::providers::http::Url::parse(&form).unwrap();
        let parameter = |name: &str| form.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        let (query, from, to) = (parameter("query"), parameter("start"), parameter("end"));
        let [from, to] = [from, to].map(|text| text.parse::<f64>().unwrap() as i64);
        assert_eq!((request.url.path(), parameter("step").as_str()), ("/api/v1/query_range", "60"));
        self.asked.lock().unwrap().push(query.clone());
        let answer = if (to - from) / 60 > self.most {
            Err(HttpError::TooLarge { origin: "prometheus".to_owned() })
        } else {
            let failed = query.contains("5..");
            let value = |minute: i64, pod: i64| {
                let minute = minute - NOW / 60 + 100_000;
                if failed { 3 * minute + (minute + pod) % 2 * 2 } else { 1500 * minute }
            };
            let series = |pod: i64| {
                let values: Vec<_> = (from / 60..=to / 60)
                    .map(|minute| json!([(minute * 60) as f64, value(minute, pod).to_string()]))
                    .collect();
                json!({"metric": {"pod": format!("web-abc-{pod}")}, "values": values})
            };
            let result = json!([series(0), series(1)]);
            let body = json!({"status": "success", "data": {"resultType": "matrix", "result": result}});
            Ok(Response { status: 200, body: body.to_string().into() })
        };
        async move { answer }.boxed()
    }
}

async fn found(flags: &[&str]) -> (String, Vec<String>) {
    let counters = Arc::new(Counters { most: 300, asked: Mutex::default() });
    let always = ["calibrate", "--prometheus", "http://prometheus.example", "--window", "2d"];
    let command = Command::try_parse_from(always.iter().chain(flags)).unwrap();
    let now = jiff::Timestamp::from_second(NOW).unwrap();
    let (text, _) = command.calibrate.found(counters.clone(), now, |_| ()).await.unwrap();
    let asked = counters.asked.lock().unwrap().clone();
    (text, asked)
}

#[tokio::test]
async fn the_block_to_paste_is_one_that_lint_accepts() {
    for flags in [
        &["--source", "red", "--stable", "web", "-n", "shop"][..],
        &["--source", "traefik", "--stable", "web-stable"],
        &["--total", r#"requests{app="web"}"#, "--errors", r#"requests{app="web",code=~"5.."}"#],
    ] {
        let (text, _) = found(&[flags, &["-o", "yaml"]].concat()).await;
        let report = lint::check(&manifest::parse("template", &text).unwrap());
        assert!(report.errors.is_empty() && report.checked == 1, "{text}\n{:#?}", report.errors);
        assert!(text.contains("horizon: ") && text.contains("margin: "), "{text}");
    }
}

#[tokio::test]
async fn what_was_found_is_told() {
    let (text, asked) = found(&["--source", "red", "--stable", "web", "-n", "shop"]).await;
    assert!(asked[0].contains(r#"pod=~"web-[a-z0-9]+-[a-z0-9]+""#), "{}", asked[0]);
    // The first answer was too large, and what came after it was asked for in smaller pieces.
    assert_eq!(asked.len(), 1 + 2 * (2 * 1440 / 180));
    for part in [
        "Looked at    48 h\n",
        "Requests     3,000 a minute (90% of them 3,000 to 3,000), 2 pods\n",
        "Failures     0.2% of all (by the hour 0.2%, 80% of them 0.2% to 0.2%)\n",
        "Stable against stable (one pod against the others):\n",
        " 0 called worse (each wrongly)",
        "\napiVersion: argoproj.io/v1alpha1\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    println!("{text}");
}

#[tokio::test]
async fn flags_that_make_no_sense_are_refused() {
    let refused = |flags: &[&str]| {
        let always = ["calibrate", "--prometheus", "http://prometheus.example"];
        Command::try_parse_from(always.iter().chain(flags)).map(|command| command.calibrate.subject().map(drop))
    };
    assert!(refused(&["--source", "red"]).is_err(), "whose pods?");
    assert!(refused(&[]).is_err());
    assert!(refused(&["--total", "t", "--errors", "e", "--window", "5m"]).is_err());
    for (flags, part) in [
        (&["--source", "apache", "--stable", "web"][..], "known: traefik"),
        (&["--total", "rate(t[1m])", "--errors", "e"], "must be a counter"),
        (&["--total", "t"], "--errors is needed"),
    ] {
        let error = refused(flags).unwrap().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
