//! Plots as small SVG files.

use std::fmt::Write as _;

const WIDTH: f64 = 700.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 6] = ["#1f6f8b", "#c8553d", "#e0a458", "#6a8d3f", "#7b5ea7", "#777777"];

/// One line, or the bars of one colour.
pub struct Series {
    pub name: String,
    /// Of the y axis, 0 to 1.
    pub values: Vec<f64>,
    pub dashed: bool,
}

const DASHES: &str = r#" stroke-dasharray="5 4""#;

/// Shares that grow from minute to minute.
pub fn lines(title: &str, x_label: &str, series: &[Series]) -> String {
    let mut svg = frame(title, x_label, 1.0);
    let longest = series.iter().map(|series| series.values.len()).max().unwrap_or(1).max(1) as f64;
    let x = |index: f64| LEFT + (WIDTH - LEFT - RIGHT) * index / longest;
    for tick in (0..=longest as usize).step_by(10) {
        text(&mut svg, x(tick as f64), HEIGHT - BOTTOM + 16.0, "middle", &tick.to_string());
    }
    for (place, series) in series.iter().enumerate() {
        let mut points = format!("{:.1},{:.1}", x(0.0), y(0.0, 1.0));
        for (index, value) in series.values.iter().enumerate() {
            let _ = write!(points, " {:.1},{:.1}", x(index as f64 + 1.0), y(*value, 1.0));
        }
        let colour = COLOURS[place % COLOURS.len()];
        let dash = if series.dashed { DASHES } else { "" };
        let _ = writeln!(svg, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>"#);
        key(&mut svg, place, &series.name, colour, series.dashed);
    }
    svg + "</svg>\n"
}

/// Groups of bars with their percentages, with the largest share of the y axis, and a dashed line at what was promised.
pub fn bars(title: &str, x_label: &str, groups: &[String], series: &[Series], largest: f64, promise: f64) -> String {
    let mut svg = frame(title, x_label, largest);
    let group = (WIDTH - LEFT - RIGHT) / groups.len() as f64;
    let bar = group * 0.8 / series.len() as f64;
    let (colour, level) = (COLOURS[COLOURS.len() - 1], y(promise, largest));
    let _ = writeln!(svg, r#"<path d="M{LEFT} {level:.1}H{:.1}" stroke="{colour}"{DASHES}/>"#, WIDTH - RIGHT);
    key(&mut svg, series.len(), &format!("the judge's promise: {:.0}%", promise * 100.0), colour, true);
    for (index, name) in groups.iter().enumerate() {
        text(&mut svg, LEFT + group * (index as f64 + 0.5), HEIGHT - BOTTOM + 16.0, "middle", name);
    }
    for (place, series) in series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        for (index, value) in series.values.iter().enumerate() {
            let left = LEFT + group * (index as f64 + 0.1) + bar * place as f64;
            let top = y(value.min(largest), largest);
            let height = (y(0.0, largest) - top).max(1.0);
            let _ = writeln!(
                svg,
                r#"<rect x="{left:.1}" y="{:.1}" width="{:.1}" height="{height:.1}" fill="{colour}"/>"#,
                y(0.0, largest) - height,
                bar * 0.9
            );
            let _ = writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" font-size="9">{:.1}</text>"#,
                left + bar * 0.45,
                (y(0.0, largest) - height).min(level) - 3.0,
                value * 100.0
            );
        }
        key(&mut svg, place, &series.name, colour, false);
    }
    svg + "</svg>\n"
}

fn frame(title: &str, x_label: &str, largest: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let _ = writeln!(svg, r#"<text x="{LEFT}" y="20" font-size="14">{title}</text>"#);
    for tick in 0..=4 {
        let value = largest * f64::from(tick) / 4.0;
        let y = y(value, largest);
        let _ = writeln!(svg, r##"<path d="M{LEFT} {y:.1}H{:.1}" stroke="#dddddd"/>"##, WIDTH - RIGHT);
        text(&mut svg, LEFT - 6.0, y + 4.0, "end", &format!("{:.0}%", value * 100.0));
    }
    text(&mut svg, LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 8.0, "middle", x_label);
    svg
}

fn key(svg: &mut String, place: usize, name: &str, colour: &str, dashed: bool) {
    let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 10.0 + 18.0 * place as f64);
    let dash = if dashed { DASHES } else { "" };
    let _ = writeln!(svg, r#"<path d="M{x} {:.1}h14" stroke="{colour}" stroke-width="4"{dash}/>"#, y - 4.0);
    text(svg, x + 20.0, y, "start", name);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
}

fn y(value: f64, largest: f64) -> f64 {
    TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / largest)
}
