//! The syntax of Kubernetes' names. Each function says what is wrong with a text, in Kubernetes' words; nothing is right.

const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const ENVIRONMENT_VARIABLE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// A name with an optional DNS subdomain and `/` before it: the key of a label or annotation, the name of a resource.
pub fn qualified_name(text: &str) -> Vec<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            let example = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED_NAME} {example}")];
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let mut wrong = match prefix {
        Some("") => vec!["prefix part must be non-empty".to_owned()],
        Some(prefix) => dns_subdomain(prefix).iter().map(|wrong| format!("prefix part {wrong}")).collect(),
        None => Vec::new(),
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_word(name, |byte| byte.is_ascii_alphanumeric(), b"-_.") {
        wrong.push(format!("name part {QUALIFIED_NAME}"));
    }
    wrong
}

pub fn label_value(text: &str) -> Vec<String> {
    let valid = text.is_empty() || is_word(text, |byte| byte.is_ascii_alphanumeric(), b"-_.");
    verdict(text, 63, valid, LABEL_VALUE)
}

pub fn dns_label(text: &str) -> Vec<String> {
    let message = if is_subdomain(text) { "must not contain dots" } else { DNS_LABEL };
    verdict(text, 63, is_word(text, is_lower_case, b"-"), message)
}

pub fn dns_subdomain(text: &str) -> Vec<String> {
    verdict(text, 253, is_subdomain(text), DNS_SUBDOMAIN)
}

pub fn port_number(port: i64) -> Vec<String> {
    let valid = (1..=65535).contains(&port);
    (!valid).then(|| "must be between 1 and 65535, inclusive".to_owned()).into_iter().collect()
}

/// The name of a container's port, as a probe or a Service refers to it.
pub fn port_name(text: &str) -> Vec<String> {
    let characters = !text.is_empty() && text.bytes().all(|byte| is_lower_case(byte) || byte == b'-');
    let rules = [
        (text.len() <= 15, "must be no more than 15 characters"),
        (characters, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (!text.contains("--"), "must not contain consecutive hyphens"),
        (!(text.starts_with('-') || text.ends_with('-')), "must not begin or end with a hyphen"),
    ];
    rules.iter().filter(|(right, _)| !right).map(|(_, message)| (*message).to_owned()).collect()
}

pub fn environment_variable(text: &str) -> Vec<String> {
    let valid = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    (!valid).then(|| ENVIRONMENT_VARIABLE.to_owned()).into_iter().collect()
}

fn verdict(text: &str, limit: usize, valid: bool, message: &str) -> Vec<String> {
    let long = (text.len() > limit).then(|| too_long(limit));
    let malformed = (!valid).then(|| message.to_owned());
    long.into_iter().chain(malformed).collect()
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|label| is_word(label, is_lower_case, b"-"))
}

fn is_lower_case(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Letters at both ends, letters and `inner` between.
fn is_word(text: &str, letter: impl Fn(u8) -> bool, inner: &[u8]) -> bool {
    let ends = text.bytes().next().zip(text.bytes().last());
    ends.is_some_and(|(first, last)| letter(first) && letter(last))
        && text.bytes().all(|byte| letter(byte) || inner.contains(&byte))
}
