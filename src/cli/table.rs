//! The table of commands, and behind it the options that several share. It is long because it is one: nothing else in
//! the program spells an option or a default.

use super::completion::SHELLS;
use super::{Command, Kind, Operand, Opt, Variable};
use crate::complaint::Exit;

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "webhook",
        operand: Operand::None,
        summary: "the server that Slack calls when somebody clicks",
        about: "Starts the server that handles Slack's interactions: it verifies Slack's signature, decides\n\
                under a lock, writes the decision to disk, answers, then updates the message. It also posts\n\
                requests that were dropped into the directory, and lets them expire.\n\
                With --tls-cert and --tls-key it stands on the internet by itself; without them it speaks plain\n\
                HTTP, and a reverse proxy or a tunnel gives Slack the HTTPS that it needs.",
        options: &[
            PORT,
            HOST,
            PENDING_DIR,
            TLS_CERT,
            TLS_KEY,
            WORKERS,
            METRICS_ADDR,
            REUSE_PORT,
            SIGN_KEY,
            LOG_LEVEL,
        ],
        variables: &[
            Variable {
                name: "SLACK_SIGNING_SECRET",
                help: "the Slack app's signing secret; several, for rotation, one a line",
            },
            Variable {
                name: "SLACK_BOT_TOKEN",
                help: "the bot token; without it messages change through response_url, and none is posted",
            },
            CHANNEL_VARIABLE,
            Variable {
                name: "RUNBOOK_CALLBACK_SECRET",
                help: "what callbacks to agents are signed with; without it none is sent",
            },
            Variable {
                name: "SLACK_SIGNING_SECRET_FILE",
                help: "a file that holds the signing secret, instead of the variable",
            },
            Variable {
                name: "SLACK_BOT_TOKEN_FILE",
                help: "a file that holds the bot token, instead of the variable",
            },
            Variable {
                name: "RUNBOOK_CALLBACK_SECRET_FILE",
                help: "a file that holds the callback secret, instead of the variable",
            },
            API_VARIABLE,
            Variable {
                name: "TMPDIR",
                help: "a directory where the workers' socket stands for a moment at start (default: /tmp)",
            },
            PROXY_VARIABLE,
            ROOTS_VARIABLE,
        ],
        examples: &[
            "SLACK_SIGNING_SECRET=… SLACK_BOT_TOKEN=xoxb-… runbook webhook",
            "runbook webhook --port 443 --tls-cert /etc/letsencrypt/live/HOST/fullchain.pem --tls-key /etc/letsencrypt/live/HOST/privkey.pem",
            "runbook webhook --host 127.0.0.1 --port 3000 --pending-dir /var/lib/runbook/pending-approvals",
        ],
        exits: PLAIN,
    },
    Command {
        name: "request",
        operand: Operand::None,
        summary: "asks for approval: writes the request and posts it to Slack",
        about: "Asks people in Slack for a yes or a no, and prints the request's id. With --wait it also waits\n\
                for the decision and prints that. Asking again with the same --id attaches to the first\n\
                request if both mean the same, and fails if not.",
        options: &[
            OPERATION,
            ARG,
            ARGS,
            RISK,
            DESCRIPTION,
            ROLLBACK,
            REQUESTED_BY,
            INVESTIGATION,
            RESOURCE,
            IMPACT,
            CHANNEL,
            TIMEOUT,
            CALLBACK,
            ID,
            Opt::flag(
                "--stdin",
                "read a whole request as JSON from standard input; options win over it",
            ),
            NO_POST,
            Opt::flag(
                "--wait",
                "wait for the decision; Ctrl-C withdraws the request",
            ),
            SIGN_KEY,
            VERIFY_KEY,
            JSON,
            PENDING_DIR,
            QUIET_LOG_LEVEL,
        ],
        variables: POSTING_VARIABLES,
        examples: &[
            "runbook request --operation scale_ecs_service --arg service=checkout-api --arg desiredCount=8 --risk high --rollback 'aws ecs update-service --desired-count 4'",
            "runbook request --operation restart_db --risk critical --timeout 15m --wait && systemctl restart postgresql",
            "runbook request --stdin --json < request.json",
        ],
        exits: &[
            Exit::Done,
            Exit::Failure,
            Exit::Usage,
            Exit::Credentials,
            Exit::Denied,
            Exit::Expired,
        ],
    },
    Command {
        name: "run",
        operand: Operand::Words,
        summary: "asks, and runs a command only if it is approved",
        about: "Shows exactly this command in Slack, waits, and on approval runs it in this directory, with its\n\
                input, output, signals and exit code its own; then Slack shows how it went. On anything but\n\
                an approval the command is not run, and one line on standard error says why. It is run at\n\
                most once: asking again with the same --id runs it only if nobody has. Ctrl-C while waiting\n\
                withdraws the request.",
        options: &[
            OPERATION,
            ARG,
            ARGS,
            RISK,
            DESCRIPTION,
            ROLLBACK,
            REQUESTED_BY,
            INVESTIGATION,
            RESOURCE,
            IMPACT,
            CHANNEL,
            TIMEOUT,
            CALLBACK,
            ID,
            NO_POST,
            SIGN_KEY,
            VERIFY_KEY,
            PENDING_DIR,
            QUIET_LOG_LEVEL,
        ],
        variables: POSTING_VARIABLES,
        examples: &[
            "runbook run --operation drop_index --risk critical -- psql -c 'DROP INDEX orders_by_date'",
            "runbook run --operation nightly_cleanup --id cleanup-$(date +%F) -- ./cleanup.sh --force",
        ],
        exits: &[
            Exit::Failure,
            Exit::Usage,
            Exit::Credentials,
            Exit::NotStarted,
            Exit::Denied,
            Exit::Expired,
            Exit::Command(0),
        ],
    },
    Command {
        name: "wait",
        operand: Operand::Id,
        summary: "waits for the decision about a request",
        about: "Waits until the request is decided, prints the decision with its reason, and says by its exit\n\
                code what it was. It needs no server: a request whose time is over expires by this clock, too.",
        options: &[
            Opt::new(
                "--timeout",
                "LENGTH",
                "stop waiting after that; the request stays as it is",
            ),
            VERIFY_KEY,
            JSON,
            PENDING_DIR,
            QUIET_LOG_LEVEL,
        ],
        variables: &[],
        examples: &["runbook wait apr-abc123 && ./deploy.sh"],
        exits: WAITING,
    },
    Command {
        name: "list",
        operand: Operand::None,
        summary: "what is pending, newest first",
        about: "Lists pending requests as a table that fits the terminal, newest first, and the files that\n\
                should be requests and cannot be read.",
        options: &[
            Opt::flag("--all", "decided and archived ones, too"),
            Opt::flag("--ids", "print nothing but their ids, one a line"),
            JSON,
            PENDING_DIR,
            QUIET_LOG_LEVEL,
        ],
        variables: &[NO_COLOR_VARIABLE, COLUMNS_VARIABLE],
        examples: &[
            "runbook list",
            "runbook list --all --json | jq -r '.[] | select(.status == \"denied\") | .id'",
        ],
        exits: PLAIN,
    },
    Command {
        name: "show",
        operand: Operand::Id,
        summary: "one request, with all that is known of it",
        about: "Shows one request, be it pending, decided or archived.",
        options: &[VERIFY_KEY, JSON, PENDING_DIR, QUIET_LOG_LEVEL],
        variables: &[NO_COLOR_VARIABLE],
        examples: &["runbook show apr-abc123", "runbook show apr-abc123 --json"],
        exits: PLAIN,
    },
    Command {
        name: "approve",
        operand: Operand::Id,
        summary: "approves from the terminal, in an emergency",
        about: "Approves a pending request from this terminal, recorded as cli:USER. It asks neither who may\n\
                approve nor how many must; what is decided or expired stays so.",
        options: &[REASON, SIGN_KEY, JSON, PENDING_DIR, QUIET_LOG_LEVEL],
        variables: UPDATING_VARIABLES,
        examples: &["runbook approve apr-abc123 --reason 'Slack is down, approved by phone'"],
        exits: &[Exit::Done, Exit::Failure, Exit::Usage, Exit::Expired],
    },
    Command {
        name: "deny",
        operand: Operand::Id,
        summary: "denies from the terminal",
        about: "Denies a pending request from this terminal, recorded as cli:USER.",
        options: &[REASON, SIGN_KEY, JSON, PENDING_DIR, QUIET_LOG_LEVEL],
        variables: UPDATING_VARIABLES,
        examples: &["runbook deny apr-abc123 --reason 'not during the sale'"],
        exits: &[Exit::Done, Exit::Failure, Exit::Usage, Exit::Expired],
    },
    Command {
        name: "cancel",
        operand: Operand::Id,
        summary: "withdraws a request",
        about: "Withdraws a pending request; whoever waits for it is told.",
        options: &[REASON, SIGN_KEY, JSON, PENDING_DIR, QUIET_LOG_LEVEL],
        variables: UPDATING_VARIABLES,
        examples: &["runbook cancel apr-abc123 --reason 'not needed any more'"],
        exits: &[Exit::Done, Exit::Failure, Exit::Usage, Exit::Expired],
    },
    Command {
        name: "audit",
        operand: Operand::MayBe(&["verify"]),
        summary: "what happened, and whether the record of it is whole",
        about: "Prints the audit log, oldest first: every request, vote, refusal, decision, expiry, withdrawal,\n\
                execution and change of the rules. Each line carries the SHA-256 of the one before it; verify\n\
                checks that, and names the first line that does not follow.",
        options: &[
            Opt::new(
                "--since",
                "WHEN",
                "only what came after: a length of time such as 24h, or an RFC 3339 time",
            ),
            Opt::new("--id", "ID", "only what is about this request").kind(Kind::Id),
            Opt::flag(
                "--json",
                "print the lines as they stand in the log; with verify, one object",
            ),
            PENDING_DIR,
            QUIET_LOG_LEVEL,
        ],
        variables: &[],
        examples: &[
            "runbook audit --since 24h",
            "runbook audit --id apr-abc123 --json | jq .",
            "runbook audit verify",
        ],
        exits: PLAIN,
    },
    Command {
        name: "init",
        operand: Operand::None,
        summary: "writes a commented configuration file",
        about: "Writes .runbook/config.yaml, or the file that --config names: every setting with its meaning and its\n\
                default, commented out, so that it changes nothing until it is edited. Only its owner may read it,\n\
                for it may come to hold secrets. A file that is there is never overwritten.",
        options: &[QUIET_LOG_LEVEL],
        variables: &[],
        examples: &[
            "runbook init",
            "runbook init --config /etc/runbook/config.yaml",
        ],
        exits: PLAIN,
    },
    Command {
        name: "doctor",
        operand: Operand::None,
        summary: "checks whatever a server needs, before it hurts",
        about: "Looks at all that runbook webhook would need, with the same options: configuration, secrets, Slack\n\
                and its clock, directory, TLS, port and public address. One line a check: ✓ is well, ! is worth a\n\
                look, ✗ is broken, with what would help behind an arrow; - could not be looked at. It ends with 1\n\
                if anything is broken. It changes nothing, and leaves nothing behind.\n\
                With --json, a list of objects: check, result (ok, warning, failed or skipped), ok (false where\n\
                it is broken), message and hint (or null).",
        options: &[
            PORT,
            HOST,
            PENDING_DIR,
            TLS_CERT,
            TLS_KEY,
            WORKERS,
            METRICS_ADDR,
            REUSE_PORT,
            SIGN_KEY,
            CACERT,
            Opt::flag(
                "--post",
                "post a message to the channel of requests that says it is a test",
            ),
            JSON,
            QUIET_LOG_LEVEL,
        ],
        variables: &[
            Variable {
                name: "SLACK_SIGNING_SECRET",
                help: "the Slack app's signing secret; or SLACK_SIGNING_SECRET_FILE, a file that holds it",
            },
            TOKEN_VARIABLE,
            CHANNEL_VARIABLE,
            API_VARIABLE,
            PROXY_VARIABLE,
            ROOTS_VARIABLE,
        ],
        examples: &[
            "runbook doctor",
            "runbook doctor --post --tls-cert fullchain.pem --tls-key privkey.pem --port 443",
        ],
        exits: PLAIN,
    },
    Command {
        name: "health",
        operand: Operand::None,
        summary: "whether a running server is well; made for cron",
        about: "Asks the server on this machine whether it is well, prints one line, and ends with 0 or 1. Nothing\n\
                that may answer in its place counts as well, and all of it takes no longer than --timeout.\n\
                A server that speaks HTTPS is asked so. Its certificate must be signed by who is trusted, and not\n\
                be over; asked at 127.0.0.1 it may be for any name, or for that of webhook.publicUrl where the\n\
                configuration has it. The configuration is not read with --url.",
        options: &[
            Opt::new("--port", "PORT", "the server's port")
                .default("3000")
                .env("SLACK_WEBHOOK_PORT")
                .key("webhook.port"),
            Opt::new(
                "--url",
                "URL",
                "ask there instead; its path is /health unless it has one",
            ),
            Opt::flag("--quiet", "print only when something is wrong"),
            Opt::new(
                "--max-pending",
                "N",
                "more than N pending approvals are too many",
            ),
            Opt::new(
                "--cert-days",
                "N",
                "the certificate must hold for N days yet",
            ),
            Opt::new("--timeout", "LENGTH", "how long all of it may take").default("10s"),
            CACERT,
            Opt::flag("--insecure", "take any certificate"),
            JSON,
            QUIET_LOG_LEVEL,
        ],
        variables: &[],
        examples: &[
            "runbook health",
            "*/5 * * * * runbook health --quiet --port 443 --cert-days 14 --max-pending 20",
            "runbook health --url https://runbook.example.com --cert-days 14",
        ],
        exits: PLAIN,
    },
    Command {
        name: "manifest",
        operand: Operand::None,
        summary: "the Slack app, ready to paste",
        about: "Prints the manifest of the Slack app as YAML: its scopes, its events, its Home tab and the addresses\n\
                that Slack calls. Paste it at https://api.slack.com/apps, Create New App, From a manifest; or open\n\
                the link in its first lines, which has it filled in. Scopes follow the configuration: approvers\n\
                by group need usergroups:read.",
        options: &[
            Opt::new(
                "--url",
                "URL",
                "where Slack reaches the server, such as https://runbook.example.com",
            )
            .key("webhook.publicUrl"),
            Opt::new("--name", "NAME", "the app's name, up to 35 characters").default("Runbook"),
            Opt::flag("--link", "print only the link"),
            Opt::flag("--json", "print JSON, which Slack takes as well"),
            QUIET_LOG_LEVEL,
        ],
        variables: &[],
        examples: &[
            "runbook manifest --url https://runbook.example.com",
            "xdg-open \"$(runbook manifest --url https://runbook.example.com --link)\"",
        ],
        exits: PLAIN,
    },
    Command {
        name: "keygen",
        operand: Operand::None,
        summary: "makes the pair of keys for signed decisions",
        about: "Makes an Ed25519 key: FILE, which the server signs decisions with (--sign-key) and only its user\n\
                may read, and FILE.pub, which tells whoever waits that a decision is real (--verify-key).",
        options: &[
            Opt::new("--out", "FILE", "where to write them; required").kind(Kind::File),
            JSON,
            QUIET_LOG_LEVEL,
        ],
        variables: &[],
        examples: &["runbook keygen --out /etc/runbook/decisions.key"],
        exits: PLAIN,
    },
    Command {
        name: "completion",
        operand: Operand::OneOf(SHELLS),
        summary: "what makes a shell complete commands, options and ids",
        about: "Prints a script for bash, zsh or fish. With it, Tab completes commands, options, their values, files,\n\
                and the ids of pending requests.",
        options: &[QUIET_LOG_LEVEL],
        variables: &[],
        examples: &[
            "source <(runbook completion bash)",
            "runbook completion bash > ~/.local/share/bash-completion/completions/runbook",
            "runbook completion zsh > /usr/local/share/zsh/site-functions/_runbook",
            "runbook completion fish > ~/.config/fish/completions/runbook.fish",
        ],
        exits: PLAIN,
    },
    Command {
        name: "man",
        operand: Operand::None,
        summary: "the manual page",
        about: "Prints the manual page, for man(1) to show.",
        options: &[QUIET_LOG_LEVEL],
        variables: &[],
        examples: &[
            "runbook man | man -l -",
            "runbook man | install -D -m 644 /dev/stdin /usr/local/share/man/man1/runbook.1",
        ],
        exits: PLAIN,
    },
    #[cfg(feature = "demo")]
    Command {
        name: "demo",
        operand: Operand::None,
        summary: "the whole story on this machine, without Slack",
        about: "Starts a real server on loopback and plays Slack before it: a page shows the channel, and a click\n\
                there reaches the server as Slack would send it. An agent asks; this terminal tells the story.\n\
                Everything is written to a temporary directory, which is removed at the end. It has a policy of\n\
                its own, unless --config names another.",
        options: &[
            Opt::new(
                "--auto",
                "CHOICE",
                "approve or deny: click by itself, tell the story and end",
            )
            .kind(Kind::OneOf(&["approve", "deny"])),
            Opt::new("--dir", "DIR", "keep the files here instead").kind(Kind::Directory),
            Opt::new("--port", "PORT", "the page's port; 0 takes any free one").default("0"),
            Opt::new(
                "--config",
                "PATH",
                "take the policy of this file instead of the demo's own; no other file is looked for",
            )
            .kind(Kind::File),
            Opt::flag(
                "--preview",
                "show every message in every state on one page, without a server",
            ),
            LOG_LEVEL,
        ],
        variables: &[Variable {
            name: "TMPDIR",
            help: "where the temporary directory is made (default: /tmp)",
        }],
        examples: &["runbook demo", "runbook demo --auto approve"],
        exits: PLAIN,
    },
];

/// Options that every command takes.
pub const COMMON: &[Opt] = &[
    Opt::new(
        "--config",
        "PATH",
        "configuration file (default: ./.runbook/config.yaml, then ~/.runbook, then /etc/runbook)",
    )
    .kind(Kind::File)
    .env("RUNBOOK_CONFIG"),
    Opt::new("--log-format", "FORMAT", "text, or json: one object a line")
        .kind(Kind::OneOf(&["text", "json"]))
        .default("text"),
];

/// A server tells what happens; who asks or looks wants to be told only what is wrong.
const LOG_LEVEL: Opt = Opt::new("--log-level", "LEVEL", "error, warn, info, debug or trace")
    .kind(Kind::OneOf(&["error", "warn", "info", "debug", "trace"]))
    .default("info");
const QUIET_LOG_LEVEL: Opt = LOG_LEVEL.default("warn");
const PORT: Opt = Opt::new(
    "--port",
    "PORT",
    "port to listen on; 0 takes any free one and prints it",
)
.default("3000")
.env("SLACK_WEBHOOK_PORT")
.key("webhook.port");
const HOST: Opt = Opt::new("--host", "HOST", "address to bind to, IPv4 or IPv6")
    .default("0.0.0.0")
    .key("webhook.host");
const TLS_CERT: Opt = Opt::new(
    "--tls-cert",
    "PATH",
    "TLS certificate chain (PEM); with --tls-key the server speaks HTTPS",
)
.kind(Kind::File);
const TLS_KEY: Opt = Opt::new(
    "--tls-key",
    "PATH",
    "TLS private key (PEM: PKCS#8, PKCS#1 or SEC1)",
)
.kind(Kind::File);
const WORKERS: Opt = Opt::new("--workers", "N", "threads that decide clicks, 1 to 256")
    .default("8")
    .key("webhook.workers");
const METRICS_ADDR: Opt = Opt::new(
    "--metrics-addr",
    "ADDR",
    "HOST:PORT that serves /metrics alone, to all who reach it; the main port then has none",
)
.key("webhook.metricsAddr");
const REUSE_PORT: Opt = Opt::flag(
    "--reuse-port",
    "share the port with another server that does the same (SO_REUSEPORT)",
);
const CACERT: Opt = Opt::new(
    "--cacert",
    "FILE",
    "certificates (PEM) to trust beside the built-in roots",
)
.kind(Kind::File);
const PENDING_DIR: Opt = Opt::new(
    "--pending-dir",
    "PATH",
    "directory of the approvals; the server, request and run make it when missing",
)
.kind(Kind::Directory)
.default(".runbook/pending-approvals")
.env("RUNBOOK_PENDING_DIR");
const OPERATION: Opt = Opt::new("--operation", "NAME", "what is to happen; required");
const ARG: Opt = Opt::new(
    "--arg",
    "NAME=VALUE",
    "an argument of it; JSON stays JSON, anything else is text; repeatable",
)
.repeatable();
const ARGS: Opt = Opt::new("--args", "JSON", "its arguments as one JSON object");
const RISK: Opt = Opt::new("--risk", "LEVEL", "low, medium, high or critical")
    .kind(Kind::OneOf(&["low", "medium", "high", "critical"]))
    .default("high");
const DESCRIPTION: Opt = Opt::new("--description", "TEXT", "the operation in words for people");
const ROLLBACK: Opt = Opt::new("--rollback", "COMMAND", "how to undo it");
const REQUESTED_BY: Opt = Opt::new(
    "--requested-by",
    "WHO",
    "who asks: a name, or a Slack user id, who then cannot approve (default: the unix user)",
);
const INVESTIGATION: Opt = Opt::new("--investigation", "ID", "the incident that it belongs to");
const RESOURCE: Opt = Opt::new("--resource", "NAME", "what it touches");
const IMPACT: Opt = Opt::new("--impact", "TEXT", "the estimated impact");
const CHANNEL: Opt = Opt::new(
    "--channel",
    "CHANNEL",
    "Slack channel to ask in, by name or id",
)
.env("SLACK_DEFAULT_CHANNEL")
.key("incident.slack.approvalChannel");
const TIMEOUT: Opt = Opt::new(
    "--timeout",
    "LENGTH",
    "how long it stays open, such as 90s or 15m",
)
.default("5m")
.key("safety.approvalTimeoutMs");
const CALLBACK: Opt = Opt::new(
    "--callback-url",
    "URL",
    "where a server posts the decided approval, signed",
);
const ID: Opt = Opt::new("--id", "ID", "the request's id (default: a new one, apr-…)");
const NO_POST: Opt = Opt::flag(
    "--no-post",
    "leave posting to a server on the same directory",
);
const JSON: Opt = Opt::flag("--json", "print JSON");
const REASON: Opt = Opt::new(
    "--reason",
    "TEXT",
    "why; shown in Slack and to whoever waits",
);

const SIGN_KEY: Opt = Opt::new(
    "--sign-key",
    "FILE",
    "key (PEM) to sign decisions with; runbook keygen makes one",
)
.kind(Kind::File)
.key("approvals.signKey");
const VERIFY_KEY: Opt = Opt::new(
    "--verify-key",
    "FILE",
    "public key (PEM) that an approval must be signed by to count",
)
.kind(Kind::File)
.key("approvals.verifyKey");

const PLAIN: &[Exit] = &[Exit::Done, Exit::Failure, Exit::Usage];
const WAITING: &[Exit] = &[
    Exit::Done,
    Exit::Failure,
    Exit::Usage,
    Exit::Denied,
    Exit::Expired,
];

const TOKEN_VARIABLE: Variable = Variable {
    name: "SLACK_BOT_TOKEN",
    help: "the bot token; or SLACK_BOT_TOKEN_FILE, a file that holds it",
};
const CHANNEL_VARIABLE: Variable = Variable {
    name: "SLACK_DEFAULT_CHANNEL",
    help: "the channel for messages, and for requests without approvalChannel",
};
const API_VARIABLE: Variable = Variable {
    name: "SLACK_API_URL",
    help: "base of Slack's Web API (default: https://slack.com/api/)",
};
const PROXY_VARIABLE: Variable = Variable {
    name: "HTTPS_PROXY",
    help: "proxy for https calls, with NO_PROXY for exceptions",
};
const ROOTS_VARIABLE: Variable = Variable {
    name: "SSL_CERT_FILE",
    help: "a PEM file of the authorities to believe, instead of those that are built in",
};
const NO_COLOR_VARIABLE: Variable = Variable {
    name: "NO_COLOR",
    help: "no colours, whatever its value",
};
const COLUMNS_VARIABLE: Variable = Variable {
    name: "COLUMNS",
    help: "how wide a table may be, where no terminal says that",
};
const POSTING_VARIABLES: &[Variable] =
    &[TOKEN_VARIABLE, API_VARIABLE, PROXY_VARIABLE, ROOTS_VARIABLE];
const UPDATING_VARIABLES: &[Variable] = &[
    Variable {
        name: "SLACK_BOT_TOKEN",
        help: "with it, or SLACK_BOT_TOKEN_FILE, Slack's message changes at once; without it a server changes it",
    },
    API_VARIABLE,
    PROXY_VARIABLE,
    ROOTS_VARIABLE,
];
