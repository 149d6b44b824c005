//! The record of a release: what was released, how it ended, and what each analysis found. Compact JSON, made when the
//! release ends.
//!
//! That of the last release is a text in the status of the Rollout, written with the status that ends it. When the next
//! version begins, its ReplicaSet takes the record with it, as an annotation: each is kept as long as the revision after its
//! own, and costs no write of its own.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::analysis::AnalysisPhase;
use super::common::{Time, is_false, is_zero};

/// Bytes that a record has at most.
pub const MOST_BYTES: usize = 4096;
/// Characters of a sentence in a record.
const SENTENCE: usize = 320;
/// Characters of an image or a name in a record: an image with its digest is longer than a name can be.
const NAME: usize = 200;

/// One release, from its beginning to its end.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Of this format: 1.
    pub v: u32,
    #[serde(flatten)]
    pub version: Version,
    /// The version that was stable when the release ended; none for a first deployment.
    pub from: Option<Version>,
    /// `Promoted`, `FastPromoted`, `Aborted`, `Superseded`, `RolledBack` or `FastRolledBack`, as in `status.duration`. Empty
    /// while it is under way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// Why it ended so; empty when a person has aborted it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    pub began: Option<Time>,
    pub ended: Option<Time>,
    /// Seconds of it that it waited for people.
    #[serde(default, skip_serializing_if = "is_zero_seconds")]
    pub waited: i64,
    /// Steps that were done, of a release that was not promoted.
    pub done: Option<i32>,
    /// Steps of the strategy; none with blue-green or without steps.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: i32,
    /// The weight that it had when it ended otherwise than by promotion.
    pub weight: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<Analysis>,
    /// Earlier attempts at the same version that ended otherwise, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
    /// Whether something had to be left out for the size.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
}

/// A version of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub revision: i64,
    pub hash: String,
    /// Of its containers, as `name=image`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// One analysis run or experiment of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    pub name: String,
    /// `Step 3`, counted from 1, `Background`, `PrePromotion`, `PostPromotion` or `Experiment`.
    pub of: String,
    pub phase: AnalysisPhase,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Verdict>,
}

/// What became of one metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub name: String,
    pub phase: AnalysisPhase,
    /// The sentence of the judge, or the value that was measured last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// Measurements that were successful, failed, inconclusive, errors.
    #[serde(default)]
    pub counts: [i32; 4],
    /// Whether it was measured and not judged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry: bool,
}

/// How an earlier attempt at the same version ended.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub outcome: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    pub began: Option<Time>,
    pub ended: Option<Time>,
}

fn is_zero_seconds(seconds: &i64) -> bool {
    *seconds == 0
}

impl Release {
    /// Reads what [`Release::to_text`] has made; none when it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|release: &Self| release.v == 1)
    }

    /// The record as JSON, in at most [`MOST_BYTES`]. What does not fit is left out, the least telling first.
    pub fn to_text(mut self) -> String {
        self.shorten_texts();
        loop {
            // Plain data always encodes.
            let text = serde_json::to_string(&self).unwrap_or_default();
            if text.len() <= MOST_BYTES || !self.leave_out() {
                return text;
            }
            self.cut = true;
        }
    }

    fn shorten_texts(&mut self) {
        let versions = self.from.iter_mut().chain([&mut self.version]);
        versions.flat_map(|version| &mut version.images).for_each(|image| shorten(image, NAME));
        shorten(&mut self.why, SENTENCE);
        for attempt in &mut self.earlier {
            shorten(&mut attempt.why, SENTENCE);
        }
        for analysis in &mut self.analyses {
            shorten(&mut analysis.message, SENTENCE);
            for metric in &mut analysis.metrics {
                shorten(&mut metric.name, NAME);
                shorten(&mut metric.found, SENTENCE);
            }
        }
    }

    /// Drops one thing, and says whether there was any.
    fn leave_out(&mut self) -> bool {
        let good = |analysis: &Analysis| analysis.phase == AnalysisPhase::Successful;
        let from_the_last = |of: &mut Vec<Analysis>, fits: fn(&Analysis) -> bool| {
            let metrics = of.iter_mut().rev().find(|analysis| fits(analysis) && !analysis.metrics.is_empty());
            metrics.is_some_and(|analysis| analysis.metrics.pop().is_some())
        };
        if from_the_last(&mut self.analyses, good) {
            return true;
        }
        if let Some(last) = self.analyses.iter().rposition(good) {
            self.analyses.remove(last);
            return true;
        }
        from_the_last(&mut self.analyses, |_| true)
            || self.analyses.pop().is_some()
            || self.earlier.pop().is_some()
            || self.from.as_mut().is_some_and(|from| from.images.pop().is_some())
            || self.version.images.pop().is_some()
    }
}

fn shorten(text: &mut String, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysis(name: String, phase: AnalysisPhase) -> Analysis {
        let metrics = (0..4).map(|index| Verdict {
            name: format!("metric-{index}"),
            phase,
            found: "canary 23 of 1,204 requests failed, stable 11 of 22,871".to_owned(),
            ..Verdict::default()
        });
        Analysis { name, of: "Background".to_owned(), phase, message: "m".repeat(999), metrics: metrics.collect() }
    }

    fn large() -> Release {
        let phases = [AnalysisPhase::Successful, AnalysisPhase::Failed];
        let images: Vec<String> =
            (0..9).map(|index| format!("c{index}=registry.example/{}", "x".repeat(300))).collect();
        Release {
            v: 1,
            version: Version { revision: 7, hash: "abc".to_owned(), images: images.clone() },
            from: Some(Version { revision: 6, hash: "def".to_owned(), images }),
            outcome: "Aborted".to_owned(),
            why: "é".repeat(5000),
            analyses: (0..20).map(|index| analysis(format!("web-{index}"), phases[index % 2])).collect(),
            ..Release::default()
        }
    }

    #[test]
    fn a_record_has_its_size_and_keeps_what_failed() {
        let text = large().to_text();
        assert!(text.len() <= MOST_BYTES, "{}", text.len());
        let kept = Release::parse(&text).unwrap();
        assert!(kept.cut && !kept.version.images.is_empty());
        let mut small = large();
        small.version.images.truncate(1);
        small.from = None;
        small.analyses.truncate(4);
        let kept = Release::parse(&small.to_text()).unwrap();
        assert!(kept.cut && kept.why.ends_with('…'));
        assert_eq!(kept.analyses.iter().filter(|one| one.phase == AnalysisPhase::Failed).count(), 2, "{kept:?}");
    }

    #[test]
    fn what_fits_is_whole_and_what_is_of_another_format_is_not_read() {
        let mut small = large();
        small.why = "too bad".to_owned();
        small.version.images = vec!["web=web:v2".to_owned()];
        small.from = None;
        small.analyses = Vec::new();
        let text = small.clone().to_text();
        assert_eq!(Release::parse(&text), Some(small));
        assert!(
            text.starts_with(r#"{"v":1,"revision":7,"hash":"abc","images":["web=web:v2"],"outcome":"Aborted""#),
            "{text}"
        );
        assert_eq!(Release::parse(&text.replace(r#""v":1"#, r#""v":2"#)), None);
        assert_eq!(Release::parse("[]"), None);
    }
}
