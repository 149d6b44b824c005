//! Image references, as far as the pull policy depends on them.

/// Whether the image has the tag `latest`, written or implied by having neither tag nor digest. Not for a text that is
/// no image reference.
pub(super) fn is_latest(image: &str) -> bool {
    Reference::parse(image).is_some_and(|reference| match reference.tag {
        Some(tag) => tag == "latest",
        None => !reference.has_digest,
    })
}

struct Reference<'a> {
    tag: Option<&'a str>,
    has_digest: bool,
}

impl<'a> Reference<'a> {
    fn parse(image: &'a str) -> Option<Self> {
        // 64 hex digits are an image's id, not its name.
        if image.len() == 64 && image.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let (rest, digest) = match image.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (image, None),
        };
        if !digest.is_none_or(is_digest) {
            return None;
        }
        // The first part is a registry if it looks like one: with a dot, a port or capitals, or by its name.
        let looks_like_host = |part: &str| {
            part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        let path = match rest.split_once('/') {
            Some((host, path)) if looks_like_host(host) && is_host(host) => path,
            _ => rest,
        };
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        let named = path.split('/').all(is_path_component) && tag.is_none_or(is_tag);
        named.then_some(Self { tag, has_digest: digest.is_some() })
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    // The lengths that the registered algorithms have.
    let lengths = [("sha256", 64), ("sha384", 96), ("sha512", 128)];
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    lengths.contains(&(algorithm, hex.len())) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Lower-case words, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let separator = rest.trim_start_matches(word);
        if separator.len() == rest.len() {
            return false;
        }
        rest = separator.trim_start_matches(['.', '_', '-']);
        match &separator[..separator.len() - rest.len()] {
            "" => return rest.is_empty(),
            "." | "_" | "__" => {}
            dashes if dashes.bytes().all(|byte| byte == b'-') => {}
            _ => return false,
        }
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if !port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    }
    name.split('.').all(|label| {
        let edges = label.bytes().next().zip(label.bytes().last());
        edges.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}
