//! What a shell offers on Tab: commands, options, the values that options have, and the ids of pending
//! approvals. A script for each shell, made from the table.

use std::fmt::Write as _;

use super::{COMMANDS, Command, Kind, Operand, Opt};

/// The shells that [`completion`] speaks to.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The script for a shell; `None` when it is none of `SHELLS`.
pub fn completion(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

fn names() -> String {
    let names = COMMANDS.iter().map(|command| command.name);
    names.collect::<Vec<_>>().join(" ")
}

const BASH_HEAD: &str = r"# Completion of runbook for bash, made by `runbook completion bash`.
_runbook() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local words='' kind=words place=() value i
    COMPREPLY=()
    # bash takes --name=value apart.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
";

const BASH_TAIL: &str = r#"    esac
    for ((i = 2; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --config | --pending-dir)
            value=${COMP_WORDS[i + 1]}
            [[ $value == = ]] && value=${COMP_WORDS[i + 2]}
            place+=("${COMP_WORDS[i]}=$value")
            ;;
        --)
            [[ ${COMP_WORDS[1]} == run ]] && kind=behind
            break
            ;;
        esac
    done
    case $kind in
    words) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;
    path)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames 2>/dev/null
        ;;
    directory)
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        compopt -o filenames 2>/dev/null
        ;;
    id)
        words=$("${COMP_WORDS[0]/#\~/$HOME}" list --ids "${place[@]}" 2>/dev/null)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        ;;
    behind)
        if declare -F _command_offset >/dev/null; then
            _command_offset $((i + 1))
        elif ((COMP_CWORD == i + 1)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        ;;
    esac
}
complete -F _runbook runbook
"#;

fn bash() -> String {
    let mut text = BASH_HEAD.to_owned();
    let names = names();
    let _ = writeln!(
        text,
        "    case $((COMP_CWORD > 1)),${{COMP_WORDS[1]}} in\n    0,*) words='{names} help --help --version' ;;\n    *,help) words='{names}' ;;"
    );
    for command in COMMANDS {
        let all: Vec<&str> = command.all_options().map(|option| option.name).collect();
        let _ = writeln!(
            text,
            "    *,{})\n        words='{} --help'",
            command.name,
            all.join(" ")
        );
        let operand = match command.operand {
            Operand::None | Operand::Words => None,
            Operand::Id => Some("kind=id".to_owned()),
            Operand::MayBe(known) | Operand::OneOf(known) => {
                Some(format!("words='{}'", known.join(" ")))
            }
        };
        if let Some(operand) = operand {
            let _ = writeln!(text, "        [[ $cur == -* ]] || {operand}");
        }
        text += "        case $prev in\n";
        for option in command
            .all_options()
            .filter(|option| option.value.is_some())
        {
            let offer = match option.kind {
                Kind::Text => "kind=none".into(),
                Kind::OneOf(known) => format!("kind=words words='{}'", known.join(" ")),
                Kind::File => "kind=path".into(),
                Kind::Directory => "kind=directory".into(),
                Kind::Id => "kind=id".to_owned(),
            };
            let _ = writeln!(text, "        {}) {offer} ;;", option.name);
        }
        text += "        esac\n        ;;\n";
    }
    text + BASH_TAIL
}

const ZSH_HEAD: &str = r#"#compdef runbook
# Completion of runbook for zsh, made by `runbook completion zsh`.
_runbook_ids() {
    local -a ids
    ids=(${(f)"$("$runbook" list --ids $place 2>/dev/null)"})
    _wanted approvals expl 'approval' compadd -a ids
}
_runbook() {
    local runbook=${${(Q)words[1]}/#\~/$HOME} command=$words[2] i
    # Not `commands`, for that is what zsh knows commands by.
    local -a place choices
    for ((i = 3; i < CURRENT; i++)); do
        case $words[i] in
        (--config|--pending-dir) place+=("$words[i]=${(Q)words[i + 1]}") ;;
        (--config=*|--pending-dir=*) place+=("${(Q)words[i]}") ;;
        (--)
            [[ $command == run ]] || break
            words=("${(@)words[i + 1, -1]}")
            ((CURRENT -= i))
            _normal
            return
            ;;
        esac
    done
"#;

const ZSH_TAIL: &str = r#"    esac
}
if [[ $funcstack[1] == _runbook ]]; then
    _runbook "$@"
else
    compdef _runbook runbook
fi
"#;

fn zsh() -> String {
    let mut text = ZSH_HEAD.to_owned();
    text += "    choices=(\n";
    for command in COMMANDS {
        let summary = zsh_quoted(command.summary);
        let _ = writeln!(text, "        '{}:{summary}'", command.name);
    }
    text += "    )\n    if ((CURRENT == 2)); then\n        \
             [[ $words[2] == -* ]] && compadd -- --help --version || _describe command choices\n        \
             return\n    fi\n    shift words\n    ((CURRENT--))\n    case $command in\n    \
             (help) _describe command choices ;;\n";
    for command in COMMANDS {
        let _ = write!(text, "    ({})\n        _arguments -S", command.name);
        for option in command.all_options() {
            let again = if option.repeatable { "*" } else { "" };
            let name = option.name;
            let takes = if option.value.is_some() { "=" } else { "" };
            let help = zsh_quoted(option.help);
            let _ = write!(
                text,
                " \\\n            '{again}{name}{takes}[{help}]{}'",
                zsh_value(option)
            );
        }
        text += " \\\n            '(- *)--help[this help]'";
        let operand = match command.operand {
            Operand::None | Operand::Words => String::new(),
            Operand::Id => ":ID:_runbook_ids".into(),
            Operand::MayBe(known) => format!("::word:({})", known.join(" ")),
            Operand::OneOf(known) => format!(":word:({})", known.join(" ")),
        };
        if !operand.is_empty() {
            let _ = write!(text, " \\\n            '{operand}'");
        }
        text += "\n        ;;\n";
    }
    text + ZSH_TAIL
}

fn zsh_value(option: &Opt) -> String {
    let Some(value) = option.value else {
        return String::new();
    };
    let action = match option.kind {
        Kind::Text => " ".into(),
        Kind::OneOf(known) => format!("({})", known.join(" ")),
        Kind::File => "_files".into(),
        Kind::Directory => "_files -/".into(),
        Kind::Id => "_runbook_ids".to_owned(),
    };
    format!(":{value}:{action}")
}

/// For a specification between single quotes.
fn zsh_quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        match c {
            '\'' => quoted += "'\\''",
            '[' | ']' | ':' | '\\' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted
}

const FISH_HEAD: &str = r#"# Completion of runbook for fish, made by `runbook completion fish`.
function __runbook_in
    set -l words (commandline -opc)
    contains -- "$words[2]" $argv
    and not contains -- -- $words
end
function __runbook_ids
    set -l words (commandline -opc)
    set -l place
    for i in (seq (count $words))
        if contains -- $words[$i] --config --pending-dir
            set -a place "$words[$i]="$words[(math $i + 1)]
        else if string match -qr -- '^--(config|pending-dir)=' $words[$i]
            set -a place $words[$i]
        end
    end
    set -l program (string replace -r '^~' $HOME -- $words[1])
    $program list --ids $place 2>/dev/null
end
function __runbook_behind_dashes
    contains -- -- (commandline -opc)
end
function __runbook_command
    set -l words (commandline -opc)
    set -l first (math (contains -i -- -- $words) + 1)
    complete -C (string join ' ' -- $words[$first..-1] (commandline -ct))
end
complete -c runbook -f
complete -c runbook -n 'test (count (commandline -opc)) -eq 1' -l version -s V -d 'the version'
complete -c runbook -l help -s h -d 'this help' -n 'not __runbook_behind_dashes'
"#;

fn fish() -> String {
    let mut text = FISH_HEAD.to_owned();
    for command in COMMANDS {
        let (name, summary) = (command.name, fish_quoted(command.summary));
        let _ = writeln!(
            text,
            "complete -c runbook -n 'test (count (commandline -opc)) -eq 1; or __runbook_in help' -a {name} -d '{summary}'"
        );
    }
    for command in COMMANDS {
        let inside = format!("complete -c runbook -n '__runbook_in {}'", command.name);
        for option in command.all_options() {
            let name = option.name.trim_start_matches('-');
            let help = fish_quoted(option.help);
            let _ = writeln!(text, "{inside} -l {name}{} -d '{help}'", fish_value(option));
        }
        if let Some(operand) = fish_operand(command) {
            let _ = writeln!(text, "{operand}");
        }
    }
    text
}

fn fish_operand(command: &Command) -> Option<String> {
    let (condition, offer) = match command.operand {
        Operand::None => return None,
        Operand::Id => (
            format!("__runbook_in {}", command.name),
            "(__runbook_ids)".into(),
        ),
        Operand::MayBe(known) | Operand::OneOf(known) => {
            (format!("__runbook_in {}", command.name), known.join(" "))
        }
        Operand::Words => (
            "__runbook_behind_dashes".into(),
            "(__runbook_command)".to_owned(),
        ),
    };
    Some(format!("complete -c runbook -n '{condition}' -a '{offer}'"))
}

fn fish_value(option: &Opt) -> String {
    if option.value.is_none() {
        return String::new();
    }
    match option.kind {
        Kind::Text => " -x".into(),
        Kind::OneOf(known) => format!(" -x -a '{}'", known.join(" ")),
        Kind::File => " -r -F".into(),
        Kind::Directory => " -x -a '(__fish_complete_directories)'".into(),
        Kind::Id => " -x -a '(__runbook_ids)'".to_owned(),
    }
}

/// Between single quotes.
fn fish_quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
