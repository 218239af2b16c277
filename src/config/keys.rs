//! Which keys of the configuration file are ours.

/// One key that we know, for checking and for the README's table.
#[derive(Debug)]
pub struct Key {
    /// Sections and name; `*` stands for `default` and the risk levels.
    pub path: &'static str,
    pub default: &'static str,
    /// What the file that `runbook init` writes shows where the default is no value that could stand there.
    pub example: Option<&'static str>,
    pub help: &'static str,
}

/// Every key of our sections.
pub const KEYS: &[Key] = &[
    key(
        "incident.slack.enabled",
        "true",
        "false: the server never calls Slack, though clicks count; who asks posts all the same",
    ),
    key(
        "incident.slack.botToken",
        "",
        "the bot token; SLACK_BOT_TOKEN comes first",
    ).example("${SLACK_BOT_TOKEN}"),
    key(
        "incident.slack.signingSecret",
        "",
        "the signing secret, or a list of them; SLACK_SIGNING_SECRET comes first",
    ).example("${SLACK_SIGNING_SECRET}"),
    key(
        "incident.slack.defaultChannel",
        "",
        "the channel for messages, by name or id; SLACK_DEFAULT_CHANNEL comes first",
    ).example("C0123ABCDEF"),
    key(
        "incident.slack.approvalChannel",
        "",
        "the channel for requests, before SLACK_DEFAULT_CHANNEL, if it is another one",
    ).example("C0123ABCDEF"),
    key(
        "incident.slack.appId",
        "any",
        "the one Slack app (A…) whose clicks count",
    ).example("A0123ABCDEF"),
    key(
        "incident.slack.teamId",
        "any",
        "the one workspace (T…) whose clicks count",
    ).example("T0123ABCDEF"),
    key(
        "safety.approvers.*.users",
        "anyone",
        "Slack user ids of who may decide, for a level or for all of them",
    ).example("[U0123ABCDEF]"),
    key(
        "safety.approvers.*.minApprovals",
        "1",
        "how many different people must approve",
    ),
    key(
        "safety.approvers.*.allowExternal",
        "false",
        "whether people of other workspaces may decide",
    ),
    key(
        "safety.approvers.*.groups",
        "[]",
        "Slack user groups (S…) whose members may decide, too",
    ).example("[S0123ABCDEF]"),
    key(
        "safety.approvers.*.allowGuests",
        "true",
        "whether guests of the workspace may decide",
    ),
    key(
        "safety.requireDenialReason",
        "false",
        "whether a denial must say why: Deny opens a dialog that asks",
    ),
    key(
        "safety.allowSelfApproval",
        "false",
        "whether who asked may also approve",
    ),
    key(
        "safety.multiApproverForCritical",
        "false",
        "whether a critical request needs two different people",
    ),
    key(
        "safety.approvalTimeoutMs",
        "300000",
        "how long a request stays open that does not say",
    ),
    key(
        "safety.requireApproval",
        "all levels",
        "which levels need a human; requests of the others are approved by policy:auto",
    ).example("[low, medium, high, critical]"),
    key(
        "safety.maxMutationsPerSession",
        "",
        "the RunbookAI agent's own",
    ).example("10"),
    key(
        "safety.cooldownBetweenCriticalMs",
        "",
        "the RunbookAI agent's own",
    ).example("60000"),
    key("safety.skipApproval", "", "the RunbookAI agent's own").example("[]"),
    key("safety.blockedOperations", "", "the RunbookAI agent's own").example("[]"),
    key(
        "approvals.mention",
        "[]",
        "Slack user ids and user groups (S…) that are notified of each request, 20 at most",
    ),
    key(
        "approvals.remindBeforeMs",
        "0",
        "how long before it expires people are reminded of a request, once; 0 for never",
    ),
    key(
        "approvals.keepDecided",
        "24h",
        "how long a decided approval stays in place before it is archived",
    ),
    key(
        "approvals.auditDir",
        "beside the pending directory",
        "the directory of the audit log, approvals.jsonl",
    ).example(".runbook/audit"),
    key(
        "approvals.auditFileBytes",
        "67108864",
        "size from which a file of the audit log is put away and a new one begun",
    ),
    key(
        "approvals.signKey",
        "",
        "file of the key that decisions are signed with; --sign-key comes first",
    ).example(".runbook/decisions.key"),
    key(
        "approvals.verifyKey",
        "",
        "file of the key that approvals must be signed by for run, wait, show and request; --verify-key comes first",
    ).example(".runbook/decisions.key.pub"),
    key(
        "webhook.host",
        "0.0.0.0",
        "address to bind to; --host comes first",
    ),
    key(
        "webhook.port",
        "3000",
        "port to listen on; --port and SLACK_WEBHOOK_PORT come first",
    ),
    key(
        "webhook.workers",
        "8",
        "threads that decide clicks; --workers comes first",
    ),
    key(
        "webhook.metricsAddr",
        "",
        "HOST:PORT that serves /metrics alone; --metrics-addr comes first",
    ).example("127.0.0.1:9464"),
    key(
        "webhook.publicUrl",
        "https://your-domain.com",
        "where Slack reaches this server; shown in the banner",
    ),
    key(
        "webhook.trustedProxies",
        "[]",
        "networks (CIDR) whose X-Forwarded-For is believed",
    ),
    key(
        "webhook.limits.connections",
        "512",
        "connections at once; beyond them, one that waits makes room",
    ),
    key(
        "webhook.limits.headBytes",
        "16384",
        "bytes of a request's head",
    ),
    key("webhook.limits.headers", "64", "headers of a request"),
    key("webhook.limits.bodyBytes", "1048576", "bytes of a body"),
    key(
        "webhook.limits.requests",
        "1000",
        "requests on one connection",
    ),
    key(
        "webhook.limits.handshake",
        "10s",
        "time for the TLS handshake",
    ),
    key(
        "webhook.limits.head",
        "10s",
        "time for a request's head, from its first byte",
    ),
    key(
        "webhook.limits.request",
        "15s",
        "time for a whole request, from its first byte",
    ),
    key(
        "webhook.limits.idle",
        "60s",
        "time between two requests on a connection",
    ),
    key(
        "webhook.limits.write",
        "10s",
        "time for the client to take an answer",
    ),
    key(
        "webhook.limits.worker",
        "2s",
        "time to wait for a free worker before 503",
    ),
    key(
        "webhook.monitors",
        "[]",
        "networks (CIDR) that may ask for details of the server's health",
    ),
];

const fn key(path: &'static str, default: &'static str, help: &'static str) -> Key {
    Key {
        path,
        default,
        example: None,
        help,
    }
}

impl Key {
    const fn example(mut self, value: &'static str) -> Self {
        self.example = Some(value);
        self
    }
}

/// The sections of the file that are ours.
pub(super) const SECTIONS: [&str; 4] = ["incident.slack", "safety", "approvals", "webhook"];

/// Whether `path` is the known key, `*` being `default` or a risk level.
pub(super) fn fits(known: &str, path: &str) -> bool {
    known.split('.').count() == path.split('.').count() && leads_to(known, path)
}

/// Whether the known key is below `path`, or is it.
pub(super) fn leads_to(known: &str, path: &str) -> bool {
    let mut known = known.split('.');
    path.split('.').all(|part| {
        known.next().is_some_and(|known| {
            if known == "*" {
                LEVELS.contains(&part)
            } else {
                known == part
            }
        })
    })
}

/// What may stand for `*`.
pub(super) const LEVELS: [&str; 5] = ["default", "low", "medium", "high", "critical"];

/// The known names directly below a section.
pub(super) fn siblings(parent: &str) -> impl Iterator<Item = &'static str> {
    let depth = parent.split('.').count();
    KEYS.iter()
        .filter(move |known| leads_to(known.path, parent))
        .flat_map(move |known| match known.path.split('.').nth(depth) {
            Some("*") => LEVELS.to_vec(),
            name => name.into_iter().collect(),
        })
}
