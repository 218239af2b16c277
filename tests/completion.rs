//! What bash, zsh and fish themselves offer on Tab.

use std::fs;
use std::os::unix::fs::symlink;

use runbook::cli::{COMMANDS, Kind};

use crate::harness::{Client, Scratch, other_program, runbook, sample, write_approval};

/// Completes one line, as bash does it: what was typed is taken apart at spaces and `=`.
const BASH: &str = r#"
source <(runbook completion bash)
line=${1//=/ = }
read -ra COMP_WORDS <<< "$line"
[[ $line == *' ' && $line != *'= ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_runbook runbook "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
[[ ${#COMPREPLY[@]} = 0 ]] || printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Lets a second zsh press Tab in a terminal, and prints what it was offered.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty inner zsh -f -i
typeset line text=
{
    print -r -- 'PROMPT= PS2='
    print -r -- 'autoload -Uz compinit && compinit -u -D && source <(runbook completion zsh)'
    print -r -- "bindkey '^I' complete-word; stty -echo -onlcr"
    print -r -- "mark() { print -r -- '<<>>' }; compprefuncs=(mark); comppostfuncs=(mark exit)"
    print -r -- "zstyle ':completion:*' insert-tab false"
    print -r -- 'compadd() {
        if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
        typeset -a hits; builtin compadd -A hits "$@"; print -rl -- $hits
    }'
    print -r -- 'print READY'
} | while IFS= read -r line; do zpty -w inner "$line"; done
until [[ $text == *READY$'\n'* ]]; do zpty -r inner line || exit 1; text+=$line; done
zpty -w -n inner "$1"$'\t'
text=
until [[ $text == *'<<>>'*'<<>>'* ]]; do zpty -r inner line || break; text+=$line; done
text=${text#*<<>>}
print -r -- ${text%%<<>>*}
"#;

const FISH: &str = r"
runbook completion fish | source
complete -C $argv[-1] | string replace -r '\t.*' ''
";

const SHELLS: [(&str, &str); 3] = [("bash", BASH), ("zsh", ZSH), ("fish", FISH)];

/// A directory where `runbook` is in the path, and two requests are pending.
struct Desk {
    place: Scratch,
}

impl Desk {
    fn new() -> Self {
        let place = Scratch::new();
        let desk = Self { place };
        let at = |name: &str| desk.place.join(name);
        for folder in ["bin", "other", ".runbook/pending-approvals"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        symlink(runbook(desk.place.path()).get_program(), at("bin/runbook")).unwrap();
        for id in ["apr-one", "apr-two", "job-3"] {
            write_approval(at(".runbook/pending-approvals"), &sample(id));
        }
        write_approval(at("other"), &sample("elsewhere"));
        for file in ["a key.pem", "cert.pem"] {
            fs::write(at(file), "").unwrap();
        }
        desk
    }

    fn offered(&self, shell: &str, script: &str, line: &str) -> Vec<String> {
        let place = self.place.path().to_str().unwrap();
        let path = format!("PATH={place}/bin:{}", std::env::var("PATH").unwrap());
        let home = format!("HOME={place}");
        let said = other_program(
            [
                "env",
                "-i",
                "-C",
                place,
                &path,
                &home,
                "TERM=dumb",
                shell,
                "-c",
                script,
                "-",
                line,
            ],
            "",
        );
        assert_eq!(said.stderr, "", "{shell}: {line}");
        let lines = said.stdout.lines().map(|line| line.trim().to_owned());
        let mut lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        lines.sort();
        lines.dedup();
        lines
    }

    /// Asserts what each shell offers, and with `All` that it is nothing else.
    fn expect(&self, line: &str, extent: Extent, expected: &[&str]) {
        for (shell, script) in SHELLS {
            let offered = self.offered(shell, script, line);
            let found = expected
                .iter()
                .all(|word| offered.iter().any(|one| one == word));
            assert!(
                found,
                "{shell}: {line}: {offered:?} is without some of {expected:?}"
            );
            if extent == Extent::All {
                assert_eq!(
                    offered.len(),
                    expected.len(),
                    "{shell}: {line}: {offered:?}"
                );
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    Some,
}

#[test]
fn commands_are_offered_and_what_stands_beside_them() {
    let desk = Desk::new();
    let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    desk.expect("runbook ", Extent::Some, &names);
    desk.expect("runbook we", Extent::All, &["webhook"]);
    desk.expect(
        "runbook completion ",
        Extent::Some,
        &["bash", "zsh", "fish"],
    );
    desk.expect("runbook audit ver", Extent::All, &["verify"]);
    desk.expect("runbook help ru", Extent::All, &["run"]);
}

#[test]
fn options_are_offered_and_the_values_that_they_may_have() {
    let desk = Desk::new();
    for (line, expected) in [
        ("runbook webhook --tls", &["--tls-cert", "--tls-key"][..]),
        ("runbook list --a", &["--all"]),
        (
            "runbook request --risk ",
            &["low", "medium", "high", "critical"],
        ),
        ("runbook run --risk m", &["medium"]),
        ("runbook wait apr-one --log-level d", &["debug"]),
        ("runbook list --log-format ", &["json", "text"]),
        ("runbook demo --auto ", &["approve", "deny"]),
    ] {
        desk.expect(line, Extent::All, expected);
    }
    // bash and zsh offer what stands behind the =, fish the whole word.
    for (shell, script) in SHELLS {
        let offered = desk.offered(shell, script, "runbook list --log-level=de");
        assert_eq!(offered.len(), 1, "{shell}: {offered:?}");
        assert!(offered[0].ends_with("debug"), "{shell}: {offered:?}");
    }
}

#[test]
fn files_and_directories_are_offered_where_an_option_takes_one() {
    let desk = Desk::new();
    desk.expect("runbook webhook --tls-cert ce", Extent::All, &["cert.pem"]);
    for (shell, script) in SHELLS {
        let offered = desk.offered(shell, script, "runbook list --pending-dir o");
        assert_eq!(offered.len(), 1, "{shell}: {offered:?}");
        assert!(offered[0].starts_with("other"), "{shell}: {offered:?}");
        let offered = desk.offered(shell, script, "runbook webhook --port ");
        assert_eq!(offered, [""; 0], "{shell}: a port is no file");
    }
}

#[test]
fn ids_of_pending_approvals_are_offered_from_the_directory_that_is_named() {
    let desk = Desk::new();
    for command in ["wait", "show", "approve", "deny", "cancel"] {
        desk.expect(
            &format!("runbook {command} ap"),
            Extent::All,
            &["apr-one", "apr-two"],
        );
    }
    desk.expect("runbook audit --id j", Extent::All, &["job-3"]);
    for named in ["--pending-dir other", "--pending-dir=other"] {
        desk.expect(
            &format!("runbook wait {named} el"),
            Extent::All,
            &["elsewhere"],
        );
    }
    for (shell, script) in SHELLS {
        let nothing = desk.offered(shell, script, "runbook wait --pending-dir nowhere x");
        assert_eq!(nothing, [""; 0], "{shell}");
    }
}

#[test]
fn behind_the_dashes_the_command_of_run_is_completed() {
    let desk = Desk::new();
    desk.expect(
        "runbook run --operation x -- runb",
        Extent::All,
        &["runbook"],
    );
    desk.expect(
        "runbook run --operation x -- cat ce",
        Extent::All,
        &["cert.pem"],
    );
}

#[test]
fn every_script_knows_every_command_and_every_option() {
    for (shell, _) in SHELLS {
        let script = Client::new(["completion", shell]).finish();
        assert_eq!((script.status, script.stderr.as_str()), (Some(0), ""));
        for command in COMMANDS {
            assert!(
                script.stdout.contains(command.name),
                "{shell}: {}",
                command.name
            );
            for option in command.all_options() {
                let name = match shell {
                    "fish" => format!("-l {} ", option.name.trim_start_matches('-')),
                    _ => option.name.to_owned(),
                };
                assert!(script.stdout.contains(&name), "{shell}: {name}");
                if let Kind::OneOf(words) = option.kind {
                    assert!(script.stdout.contains(&words.join(" ")), "{shell}: {name}");
                }
            }
        }
    }
}

#[test]
fn a_shell_that_is_not_known_is_named_with_those_that_are() {
    for (words, said) in [
        (
            &["completion"][..],
            "completion needs one of bash, zsh, fish: runbook completion bash|zsh|fish [OPTIONS]",
        ),
        (
            &["completion", "ksh"],
            "completion ksh is none of bash, zsh, fish (did you mean zsh?)",
        ),
        (&["completion", "zsh", "bash"], "stray argument bash"),
    ] {
        let finished = Client::new(words.iter().copied()).finish();
        let expected = format!("runbook: error: {said}\n");
        assert_eq!((finished.status, finished.stderr), (Some(2), expected));
    }
}
