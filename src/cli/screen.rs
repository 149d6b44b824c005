//! The terminal: its size, its colours, and a picture that is drawn over itself without flicker.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

/// Codes of what colours and weights texts, sparingly.
pub const BOLD: u8 = 1;
pub const DIM: u8 = 2;
pub const RED: u8 = 31;
pub const GREEN: u8 = 32;
pub const YELLOW: u8 = 33;

/// Heights within a line, from the lowest.
pub const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A text in a colour, where there are colours.
pub fn painted(color: bool, code: u8, text: &str) -> String {
    if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// Whether standard output is a terminal on which the user wants colours.
pub fn has_color() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The size of the terminal; nothing when standard output is none.
pub fn size() -> Option<Size> {
    if !io::stdout().is_terminal() {
        return None;
    }
    // The standard library cannot ask; stty is wherever a shell is.
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let output = Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Option<Size> {
    let (rows, columns) = text.trim().split_once(' ')?;
    let size = Size { columns: columns.parse().ok()?, rows: rows.parse().ok()? };
    // A terminal that does not know its size says 0.
    (size.columns > 0 && size.rows > 0).then_some(size)
}

/// Where pictures are drawn one over the other. They leave no trace; the last one stays when it ends.
pub struct Screen {
    live: bool,
    last: String,
}

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// A terminal that knows these shows what is between them at once; others ignore them.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";

impl Screen {
    /// Takes over the terminal; where there is none, pictures are printed one after the other.
    pub fn open() -> io::Result<Self> {
        let live = io::stdout().is_terminal();
        if live {
            io::stdout().write_all(ENTER.as_bytes())?;
        }
        Ok(Self { live, last: String::new() })
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Shows a picture, unless it is the one that is shown.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn show(&mut self, picture: &str, size: Option<Size>) -> io::Result<()> {
        if picture == self.last {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        if self.live {
            // Each line is cleared to its end, so that nothing has to be wiped first.
            let text = cropped(picture, size).replace('\n', "\x1b[K\r\n");
            write!(out, "{BEGIN}{text}{END}")?;
        } else {
            let between = if self.last.is_empty() { "" } else { "---\n" };
            write!(out, "{between}{picture}")?;
        }
        self.last = picture.to_owned();
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.live {
            // A terminal that has gone needs no restoring.
            let _ = write!(io::stdout(), "{LEAVE}{}", self.last);
            let _ = io::stdout().flush();
        }
    }
}

/// What fits on the terminal: a picture that is too tall would push its own head out of sight.
fn cropped(picture: &str, size: Option<Size>) -> String {
    let lines: Vec<&str> = picture.lines().collect();
    let Some(size) = size.filter(|size| lines.len() >= size.rows && size.rows > 2) else { return picture.to_owned() };
    let kept = size.rows - 2;
    format!("{}\n… {} more lines\n", lines[..kept].join("\n"), lines.len() - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_its_terminal() {
        assert_eq!(parse("40 120\n"), Some(Size { columns: 120, rows: 40 }));
        assert_eq!(parse("0 0\n"), None);
        let size = |rows| Some(Size { columns: 80, rows });
        assert_eq!(cropped("a\nb\nc\n", size(4)), "a\nb\nc\n");
        assert_eq!(cropped("a\nb\nc\nd\n", size(4)), "a\nb\n… 2 more lines\n");
        assert_eq!(cropped("a\nb\nc\nd\n", None), "a\nb\nc\nd\n");
    }
}
