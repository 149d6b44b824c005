//! `tidegate completion`, and what the shells ask when the user presses Tab.
//!
//! All of them ask the program itself (`tidegate __complete WORDS…`), which answers with one candidate a line and, as
//! kubectl expects of its plugins, a last line that says that no file names are wanted.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Command, ValueEnum};
use kube::ResourceExt;
use kube::api::ListParams;

use super::connect::{Connected, Connection, Known};
use super::kind::Kind;
use crate::api::{AnalysisRun, Experiment, Rollout};

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
bash:  source <(tidegate completion bash)
zsh:   source <(tidegate completion zsh)
fish:  tidegate completion fish | source
`kubectl tidegate` is completed by kubectl's own completion once a file called kubectl_complete-tidegate is in the
PATH that says:  #!/bin/sh
                 exec kubectl tidegate __complete \"$@\"")]
pub struct Completion {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

impl Completion {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        print!("{}", script(self.shell));
        Ok(ExitCode::SUCCESS)
    }
}

fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => {
            r#"# bash completion of tidegate
_tidegate() {
  local IFS=$'\n'
  COMPREPLY=($(tidegate __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | grep -v '^:' | cut -f1))
}
complete -o default -F _tidegate tidegate
"#
        }
        Shell::Zsh => {
            r#"#compdef tidegate
_tidegate() {
  local -a found
  found=(${(f)"$(tidegate __complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null | grep -v '^:' | cut -f1)"})
  if (( ${#found} )); then compadd -a found; else _files; fi
}
compdef _tidegate tidegate
"#
        }
        Shell::Fish => {
            r#"# fish completion of tidegate
function __tidegate_complete
  set -l words (commandline -opc) (commandline -ct)
  tidegate __complete $words[2..-1] 2>/dev/null | string match -v -r '^:'
end
complete -c tidegate -f -a '(__tidegate_complete)'
"#
        }
        Shell::Powershell => {
            r#"# PowerShell completion of tidegate
Register-ArgumentCompleter -Native -CommandName tidegate -ScriptBlock {
  param($word, $ast, $position)
  $words = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
  if ($word -eq '') { $words += '""' }
  tidegate __complete @words 2>$null | Where-Object { $_ -notmatch '^:' } | ForEach-Object { ($_ -split "`t")[0] }
}
"#
        }
    }
}

/// Answers what the shells ask
#[derive(Debug, clap::Args)]
pub struct Complete {
    /// The words after the name of the program; the last one is being written
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// How long the cluster may take to answer: a user waits with a finger on Tab.
const PATIENCE: Duration = Duration::from_secs(2);
/// cobra's way to say: no file names. 0 would allow them.
const NO_FILES: &str = ":4";
const FILES: &str = ":0";

impl Complete {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut command = super::command();
        command.build();
        let answer = candidates(&command, &self.words);
        let mut words = answer.words;
        if let Some((kinds, connection)) = answer.objects {
            // Without a cluster there is nothing to propose.
            if let Ok(Ok(names)) = tokio::time::timeout(PATIENCE, names(kinds, connection)).await {
                words.extend(names);
            }
        }
        let last = self.words.last().map_or("", String::as_str);
        for word in words.iter().filter(|word| word.starts_with(last)) {
            println!("{word}");
        }
        println!("{}", if answer.files { FILES } else { NO_FILES });
        Ok(ExitCode::SUCCESS)
    }
}

/// What may stand where the last word stands.
#[derive(Default)]
struct Candidates {
    words: Vec<String>,
    /// Names of objects of these kinds in the cluster.
    objects: Option<(Vec<Kind>, Connection)>,
    files: bool,
}

fn candidates(root: &Command, words: &[String]) -> Candidates {
    let Some((last, before)) = words.split_last() else { return Candidates::default() };
    let mut command = root;
    let mut connection = Connection::default();
    // The words of this command that are neither flags nor their values.
    let mut positional: Vec<&str> = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let mut open: Option<&Arg> = None;
    for word in before {
        if let Some(argument) = open.take() {
            remember(&mut connection, argument, word);
        } else if let Some(flag) = word.strip_prefix('-') {
            open = argument(command, flag).filter(|_| !word.contains('='));
            if let (Some((name, value)), true) = (word.split_once('='), word.starts_with("--")) {
                let found = command.get_arguments().find(|found| found.get_long() == name.strip_prefix("--"));
                found.into_iter().for_each(|found| remember(&mut connection, found, value));
            }
        } else if let Some(found) = command.find_subcommand(word).filter(|_| positional.is_empty()) {
            command = found;
            path.push(found.get_name());
        } else {
            positional.push(word);
        }
    }
    if let Some(argument) = open {
        return values(argument, connection);
    }
    let mut found = Candidates::default();
    if last.starts_with('-') {
        let flags = command.get_arguments().filter(|argument| !argument.is_hide_set());
        found.words = flags.filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect();
        return found;
    }
    let subcommands = command.get_subcommands().filter(|found| !found.is_hide_set() && positional.is_empty());
    found.words = subcommands.map(|found| found.get_name().to_owned()).collect();
    let kinds = kinds(&path);
    match positional.first().and_then(|word| Kind::of(word, &kinds)) {
        Some(kind) => found.objects = Some((vec![kind], connection)),
        None if path == ["list"] && positional.is_empty() => {
            found.words.extend(["rollouts", "experiments"].map(str::to_owned));
        }
        None if !kinds.is_empty() => {
            if positional.is_empty() && kinds != [Kind::Rollout] {
                found.words.extend(kinds.iter().map(|kind| kind.words()[0].to_owned()));
            }
            let default = kinds.contains(&Kind::Rollout);
            found.objects = default.then(|| (vec![Kind::Rollout], connection));
        }
        None => {
            for argument in command.get_positionals() {
                found.words.extend(argument.get_possible_values().iter().map(|value| value.get_name().to_owned()));
            }
        }
    }
    found
}

/// The kinds that a command is about, the one of a bare name first.
fn kinds(path: &[&str]) -> Vec<Kind> {
    match path {
        ["get" | "retry"] => vec![Kind::Rollout, Kind::Experiment],
        ["terminate"] => vec![Kind::AnalysisRun, Kind::Experiment],
        ["abort" | "pause" | "promote" | "restart" | "status" | "undo"] | ["set", "image"] => vec![Kind::Rollout],
        _ => Vec::new(),
    }
}

/// The argument of a flag that takes a value, which is then the next word.
fn argument<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let is = |argument: &&Arg| match flag.strip_prefix('-') {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| flag == short.to_string()),
    };
    let found = command.get_arguments().find(is)?;
    (found.get_action().takes_values() && !found.is_require_equals_set()).then_some(found)
}

fn remember(connection: &mut Connection, argument: &Arg, value: &str) {
    match argument.get_id().as_str() {
        "kubeconfig" => connection.kubeconfig = Some(value.into()),
        "context" => connection.context = Some(value.to_owned()),
        "namespace" => connection.namespace = Some(value.to_owned()),
        _ => {}
    }
}

fn values(argument: &Arg, _: Connection) -> Candidates {
    let words = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let files = ["filename", "kubeconfig", "from_file", "output", "html"].contains(&argument.get_id().as_str());
    Candidates { words, files, ..Candidates::default() }
}

async fn names(kinds: Vec<Kind>, connection: Connection) -> anyhow::Result<Vec<String>> {
    let connected = connection.connect().await?;
    let mut names = Vec::new();
    for kind in kinds {
        names.extend(match kind {
            Kind::Rollout => list::<Rollout>(&connected).await?,
            Kind::Experiment => list::<Experiment>(&connected).await?,
            Kind::AnalysisRun => list::<AnalysisRun>(&connected).await?,
        });
    }
    Ok(names)
}

async fn list<K: Known>(connected: &Connected) -> anyhow::Result<Vec<String>> {
    let listed = connected.api::<K>().list_metadata(&ListParams::default()).await?;
    Ok(listed.items.iter().map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Candidates {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let mut command = crate::cli::command();
        command.build();
        candidates(&command, &words)
    }

    #[test]
    fn commands_flags_kinds_and_names_are_proposed() {
        let has = |text: &str, word: &str| asked(text).words.iter().any(|found| found == word);
        assert!(has("", "promote") && !has("", "__complete"));
        assert!(has("set ", "image") && has("create ", "analysisrun"));
        assert!(has("get ", "experiment") && has("terminate ", "analysisrun") && has("list ", "rollouts"));
        assert!(has("get web --", "--watch") && has("promote --f", "--full"));
        assert!(has("controller --logformat ", "json") && has("completion ", "fish"));
        assert!(asked("lint -f ").files && !asked("get ").files);
        let objects = |text: &str| asked(text).objects.map(|(kinds, _)| kinds);
        assert_eq!(objects("promote "), Some(vec![Kind::Rollout]));
        assert_eq!(objects("set image "), Some(vec![Kind::Rollout]));
        assert_eq!(objects("get exp "), Some(vec![Kind::Experiment]));
        assert_eq!(objects("terminate ar "), Some(vec![Kind::AnalysisRun]));
        assert_eq!(objects("terminate "), None);
        let namespace = |text: &str| asked(text).objects.and_then(|(_, connection)| connection.namespace);
        assert_eq!(namespace("abort -n shop ").as_deref(), Some("shop"));
        assert_eq!(namespace("abort --namespace=shop ").as_deref(), Some("shop"));
    }
}
