//! Times: what `now`, `date` and `timezone` make, and how Go prints and reads them.

use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::lexer::quote;
use super::operators::as_string;
use super::value::Value;

/// As Go prints a time: `2026-11-21 10:51:52.5 +0000 UTC`.
pub(super) fn print(time: &Zoned) -> String {
    format!("{} {} {}", time.strftime("%Y-%m-%d %H:%M:%S%.f"), time.strftime("%z"), time.strftime("%Z"))
}

pub(super) fn rfc3339(time: &Zoned) -> String {
    let zone = if time.offset() == Offset::UTC { "Z".to_owned() } else { time.strftime("%:z").to_string() };
    format!("{}{zone}", time.strftime("%Y-%m-%dT%H:%M:%S%.f"))
}

pub(super) fn shift(time: &Zoned, nanos: i64) -> Result<Value, String> {
    match time.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(time) => Ok(Value::Time(Arc::new(time))),
        Err(_) => Err("time is out of range".into()),
    }
}

/// In nanoseconds, or the longest that there is.
pub(super) fn between(later: &Zoned, earlier: &Zoned) -> i64 {
    let nanos = later.timestamp().duration_since(earlier.timestamp()).as_nanos();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

pub(super) fn now(now: Timestamp, zone: Option<&Value>) -> Value {
    let zone = match zone {
        Some(Value::Zone(zone)) => zone.clone(),
        _ => TimeZone::UTC,
    };
    Value::Time(Arc::new(now.to_zoned(zone)))
}

pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

/// What `date` tries when it is given no layout.
const LAYOUTS: [&str; 7] = [
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    "2006-01-02T15:04:05Z07:00",
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
];

/// `date([zone,] text[, layout[, zone name]])`.
pub(super) fn date(arguments: &[Value]) -> Result<Value, String> {
    let (given, arguments) = match arguments {
        [Value::Zone(zone), rest @ ..] => (Some(zone.clone()), rest),
        all => (None, all),
    };
    let Some(text) = arguments.first() else {
        return Err("runtime error: index out of range [0] with length 0".into());
    };
    let text = as_string(text)?;
    let default = given.unwrap_or(TimeZone::UTC);
    let time = match arguments {
        [_, layout] => parse(as_string(layout)?, text, default)?,
        [_, layout, name] => parse(as_string(layout)?, text, zone(as_string(name)?)?)?,
        _ => LAYOUTS
            .iter()
            .find_map(|layout| parse(layout, text, default.clone()).ok())
            .ok_or_else(|| format!("invalid date {text}"))?,
    };
    Ok(Value::Time(Arc::new(time)))
}

/// The elements of a Go layout: how each is written in it, longest first among those that begin alike.
const ELEMENTS: [(&str, Element); 31] = [
    ("January", Element::MonthName),
    ("Jan", Element::MonthShort),
    ("Monday", Element::WeekdayName),
    ("Mon", Element::WeekdayShort),
    ("MST", Element::ZoneName),
    ("2006", Element::Year),
    ("002", Element::DayOfYear),
    ("01", Element::Month),
    ("02", Element::Day),
    ("03", Element::Hour12),
    ("04", Element::Minute),
    ("05", Element::Second),
    ("06", Element::ShortYear),
    ("15", Element::Hour),
    ("1", Element::Month),
    ("__2", Element::DayOfYear),
    ("_2", Element::Day),
    ("2", Element::Day),
    ("3", Element::Hour12),
    ("4", Element::Minute),
    ("5", Element::Second),
    ("PM", Element::Half),
    ("pm", Element::Half),
    ("Z07:00", Element::OffsetOrZ),
    ("Z0700", Element::OffsetOrZ),
    ("Z07", Element::OffsetOrZ),
    ("-07:00", Element::Offset),
    ("-0700", Element::Offset),
    ("-07", Element::Offset),
    (".000", Element::Fraction),
    (".999", Element::Fraction),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Year,
    ShortYear,
    MonthName,
    MonthShort,
    Month,
    WeekdayName,
    WeekdayShort,
    Day,
    DayOfYear,
    Hour,
    Hour12,
    Half,
    Minute,
    Second,
    Fraction,
    ZoneName,
    Offset,
    OffsetOrZ,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// What has been read of a time. A text without a date is in the year zero, as in Go.
struct Fields {
    year: i16,
    month: i8,
    day: i8,
    day_of_year: Option<i16>,
    hour: i8,
    afternoon: Option<bool>,
    minute: i8,
    second: i8,
    nanos: i32,
    zone: Option<TimeZone>,
}

fn parse(layout: &str, text: &str, default: TimeZone) -> Result<Zoned, String> {
    let mut fields = Fields {
        year: 0,
        month: 1,
        day: 1,
        day_of_year: None,
        hour: 0,
        afternoon: None,
        minute: 0,
        second: 0,
        nanos: 0,
        zone: None,
    };
    let mut rest = text;
    let mut remaining = layout;
    let failed = |rest: &str, part: &str| {
        let (text, layout) = (quote(text), quote(layout));
        format!("parsing time {text} as {layout}: cannot parse {} as {}", quote(rest), quote(part))
    };
    while !remaining.is_empty() {
        let (literal, element) = next_element(remaining);
        rest = rest.strip_prefix(literal).ok_or_else(|| failed(rest, literal))?;
        remaining = &remaining[literal.len()..];
        let Some((written, element)) = element else { break };
        rest = fields.read(element, written, rest).ok_or_else(|| failed(rest, written))?;
        remaining = &remaining[written.len()..];
        // A fraction is read after the seconds even if the layout has none.
        if element == Element::Second && !remaining.starts_with(['.', ',']) {
            rest = fields.read(Element::Fraction, "", rest).unwrap_or(rest);
        }
    }
    if !rest.is_empty() {
        let (text, layout) = (quote(text), quote(layout));
        return Err(format!("parsing time {text} as {layout}: extra text: {}", quote(rest)));
    }
    fields.time(default).ok_or_else(|| format!("parsing time {}: out of range", quote(text)))
}

/// The literal text up to the next element, and that element as it is written.
fn next_element(layout: &str) -> (&str, Option<(&str, Element)>) {
    for (start, _) in layout.char_indices() {
        let rest = &layout[start..];
        for (written, element) in ELEMENTS {
            if !rest.starts_with(written) {
                continue;
            }
            let mut length = written.len();
            if element == Element::Fraction {
                let digit = &written[1..2];
                length = 1 + rest[1..].len() - rest[1..].trim_start_matches(digit).len();
            }
            return (&layout[..start], Some((&rest[..length], element)));
        }
    }
    (layout, None)
}

impl Fields {
    /// Reads one element and returns what follows.
    fn read<'a>(&mut self, element: Element, written: &str, text: &'a str) -> Option<&'a str> {
        let short = |names: &[&str]| {
            names.iter().position(|name| text.get(..3).is_some_and(|text| text.eq_ignore_ascii_case(&name[..3])))
        };
        let long = |names: &[&str]| {
            names
                .iter()
                .position(|name| text.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name)))
                .map(|index| (index, names[index].len()))
        };
        // One digit is enough where the layout has one.
        let two = || {
            digits(
                text.trim_start_matches(if written.starts_with('_') { " " } else { "" }),
                2,
                written.len() == 2 && !written.starts_with('_'),
            )
        };
        Some(match element {
            Element::Year => {
                let (year, rest) = digits(text, 4, true)?;
                self.year = i16::try_from(year).ok()?;
                rest
            }
            Element::ShortYear => {
                let (year, rest) = digits(text, 2, true)?;
                self.year = i16::try_from(year + if year >= 69 { 1900 } else { 2000 }).ok()?;
                rest
            }
            Element::MonthName => {
                let (month, length) = long(&MONTHS)?;
                self.month = month as i8 + 1;
                &text[length..]
            }
            Element::MonthShort => {
                self.month = short(&MONTHS)? as i8 + 1;
                &text[3..]
            }
            Element::WeekdayName => &text[long(&WEEKDAYS)?.1..],
            Element::WeekdayShort => short(&WEEKDAYS).map(|_| &text[3..])?,
            Element::Month => number(two()?, &mut self.month)?,
            Element::Day => number(two()?, &mut self.day)?,
            Element::Hour => number(digits(text, 2, false)?, &mut self.hour)?,
            Element::Hour12 => number(two()?, &mut self.hour)?,
            Element::Minute => number(two()?, &mut self.minute)?,
            Element::Second => number(two()?, &mut self.second)?,
            Element::DayOfYear => {
                let (day, rest) = digits(text.trim_start(), 3, false)?;
                self.day_of_year = Some(i16::try_from(day).ok()?);
                rest
            }
            Element::Half => {
                self.afternoon = Some(match text.get(..2)? {
                    "PM" | "pm" => true,
                    "AM" | "am" => false,
                    _ => return None,
                });
                &text[2..]
            }
            Element::Fraction => {
                let fraction = text.strip_prefix(['.', ','])?;
                let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
                if end == 0 || written.contains('0') && end != written.len() - 1 {
                    return None;
                }
                self.nanos = format!("{:0<9.9}", &fraction[..end]).parse().ok()?;
                &fraction[end..]
            }
            Element::ZoneName => {
                let end = text.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(text.len());
                if !(3..=5).contains(&end) {
                    return None;
                }
                // Go does not know the offset of a foreign abbreviation either, and takes zero.
                self.zone = Some(TimeZone::UTC);
                &text[end..]
            }
            Element::OffsetOrZ if text.starts_with('Z') => {
                self.zone = Some(TimeZone::UTC);
                &text[1..]
            }
            Element::Offset | Element::OffsetOrZ => {
                let sign = match text.chars().next()? {
                    '+' => 1,
                    '-' => -1,
                    _ => return None,
                };
                let (hours, mut rest) = digits(&text[1..], 2, true)?;
                let mut minutes = 0;
                if written.ends_with("00") {
                    if written.contains(':') {
                        rest = rest.strip_prefix(':')?;
                    }
                    (minutes, rest) = digits(rest, 2, true)?;
                }
                let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
                self.zone = Some(if offset == Offset::UTC { TimeZone::UTC } else { TimeZone::fixed(offset) });
                rest
            }
        })
    }

    fn time(self, default: TimeZone) -> Option<Zoned> {
        let hour = match self.afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let mut time =
            DateTime::new(self.year, self.month, self.day, hour, self.minute, self.second, self.nanos).ok()?;
        if let Some(day) = self.day_of_year {
            time = time.with().day_of_year(day).build().ok()?;
        }
        time.to_zoned(self.zone.unwrap_or(default)).ok()
    }
}

fn digits(text: &str, most: usize, all: bool) -> Option<(i32, &str)> {
    let end = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if end == 0 || all && end < most {
        return None;
    }
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn number<'a>((number, rest): (i32, &'a str), field: &mut i8) -> Option<&'a str> {
    *field = i8::try_from(number).ok()?;
    Some(rest)
}
