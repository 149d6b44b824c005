//! Reading the pages of the manual.

use std::path::{Path, PathBuf};

/// A page in Markdown.
pub struct Page {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
    pub blocks: Vec<Block>,
}

/// A fenced block.
pub struct Block {
    /// What stands behind the fence: the language; for YAML then `values` if it is for Helm, and the name of its file.
    pub info: String,
    pub text: String,
    /// File and line.
    pub place: String,
}

impl Block {
    pub fn is_yaml(&self) -> bool {
        self.info.split(' ').next() == Some("yaml")
    }

    /// Whether it is for the chart and holds no objects.
    pub fn is_values(&self) -> bool {
        self.info.starts_with("yaml values")
    }

    /// Whether it is planned and not applied.
    pub fn is_planned(&self) -> bool {
        self.info.starts_with("yaml plan")
    }

    /// Whether it is for another system, whose kinds no cluster of ours serves.
    pub fn is_foreign(&self) -> bool {
        self.info.starts_with("yaml foreign")
    }
}

impl Page {
    /// The commands of the page, and where they stand.
    pub fn commands(&self) -> Vec<(String, String)> {
        let mut commands = Vec::new();
        for block in &self.blocks {
            let found: Vec<String> = match block.info.as_str() {
                "sh" => joined(&block.text),
                "console" => console(&block.text).into_iter().map(|(command, _)| command).collect(),
                _ => continue,
            };
            commands.extend(found.into_iter().map(|command| (block.place.clone(), command)));
        }
        commands
    }

    /// Writes the blocks that have a file name to a folder.
    pub fn save(&self, folder: &Path) {
        for block in self.blocks.iter().filter(|block| block.is_yaml()) {
            if let Some(name) = block.info.split(' ').find(|word| word.ends_with(".yaml")) {
                std::fs::write(folder.join(name), &block.text).unwrap();
            }
        }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and the manual.
pub fn pages() -> Vec<Page> {
    let mut files = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    files.sort();
    files.iter().map(page).collect()
}

fn page(file: &PathBuf) -> Page {
    let text = std::fs::read_to_string(file).unwrap();
    let path = file.strip_prefix(root()).unwrap().display().to_string();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (open.take(), line.strip_prefix("```")) {
            (None, Some(info)) => {
                let place = format!("{path}:{}", index + 1);
                open = Some(Block { info: info.trim().to_owned(), text: String::new(), place });
            }
            (Some(block), Some("")) => blocks.push(block),
            (Some(mut block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{path}: a block is not closed");
    Page { path, text, blocks }
}

/// The commands of a shell block: lines that end with a backslash go on, comments are left out.
fn joined(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// The commands of a session, each with the lines that it says.
pub fn console(text: &str) -> Vec<(String, Vec<String>)> {
    let mut session: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        match (line.strip_prefix("$ "), session.last_mut()) {
            (Some(command), _) => session.push((command.to_owned(), Vec::new())),
            (None, Some((_, output))) if !line.trim().is_empty() => output.push(line.to_owned()),
            (None, _) => {}
        }
    }
    session
}

/// The words of a command up to the first operator of the shell, quotes and comments taken away.
pub fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in command.chars() {
        match (quote, character) {
            (Some(open), character) if open == character => quote = None,
            (Some(_), character) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '<' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, character) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// All commands with their flags, in Markdown.
pub fn flags(mut command: clap::Command) -> String {
    command.build();
    let mut page = "# Commands and flags\n\nWritten from the program itself; a test keeps it so. `tidegate COMMAND --help` \
                    says the same. With the binary\ncalled `kubectl-tidegate` in the `PATH`, `kubectl tidegate COMMAND` \
                    does, too.\n"
        .to_owned();
    let connection = [
        "kubeconfig",
        "context",
        "namespace",
        "cluster",
        "user",
        "server",
        "token",
        "act_as",
        "insecure_skip_tls_verify",
    ];
    page.push_str(
        "\nCommands that speak to a cluster take `--kubeconfig`, `--context`, `--namespace` (`-n`), `--cluster`, `--user`, \
         `--server` (`-s`),\n`--token`, `--as` and `--insecure-skip-tls-verify`, as kubectl does.\n",
    );
    let mut commands = Vec::new();
    collect(&command, "tidegate", &mut commands);
    for (path, command) in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        page.push_str(&format!("\n## {path}\n\n{about}.\n"));
        let hidden = |argument: &&clap::Arg| {
            let id = argument.get_id().as_str();
            !["help", "version"].contains(&id) && !connection.contains(&id)
        };
        let (shown, taken): (Vec<_>, Vec<_>) =
            command.get_arguments().filter(hidden).partition(|argument| !argument.is_hide_set());
        if !shown.is_empty() {
            page.push_str("\n| argument | default | what it does |\n|---|---|---|\n");
            for argument in shown {
                page.push_str(&row(argument));
            }
        }
        if !taken.is_empty() {
            let names: Vec<String> = taken.iter().map(|argument| format!("`{}`", name(argument))).collect();
            page.push_str(&format!(
                "\nTaken from Argo Rollouts' manifests with a warning, without effect: {}.\n",
                names.join(", ")
            ));
        }
    }
    page
}

/// The commands below one, each followed by those below it. What only groups others is left out.
fn collect<'a>(command: &'a clap::Command, path: &str, found: &mut Vec<(String, &'a clap::Command)>) {
    let shown = |command: &&clap::Command| command.get_name() != "help" && !command.is_hide_set();
    for child in command.get_subcommands().filter(shown) {
        let path = format!("{path} {}", child.get_name());
        if !child.is_subcommand_required_set() {
            found.push((path.clone(), child));
        }
        collect(child, &path, found);
    }
}

fn row(argument: &clap::Arg) -> String {
    let short = argument.get_short().map(|short| format!(", `-{short}`")).unwrap_or_default();
    let defaults: Vec<_> = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    let takes_value = argument.get_num_args().is_some_and(|range| range.takes_values());
    let default = match defaults.join(",") {
        default if default.is_empty() || !takes_value => String::new(),
        default => format!("`{default}`"),
    };
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if takes_value && !values.is_empty() && values != ["true", "false"] {
        help.push_str(&format!(" ({})", values.join(", ")));
    }
    format!("| `{}`{short} | {default} | {} |\n", name(argument), help.replace('|', "\\|"))
}

fn name(argument: &clap::Arg) -> String {
    let value = || {
        let names = argument.get_value_names().unwrap_or_default();
        names.first().map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string)
    };
    argument.get_long().map_or_else(value, |long| format!("--{long}"))
}
