//! `runbook demo`: the whole story on one machine. The server, its files, signatures and requests are real; only Slack
//! is played.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Map;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::desk::{Office, asking, outcome};
use super::server::Event;
use super::webhook;
use super::{print, request};
use crate::approval::{ApprovalId, Choice, CommandLine, Risk};
use crate::cli::{self, Parsed, Request};
use crate::client::{self, Waited};
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, Environment, text};
use crate::demo::stand_in::StandIn;
use crate::demo::{App, CHANNEL, PEOPLE, Place, Wish, aside, story};
use crate::random;
use crate::slack::signature::SigningSecret;
use crate::store::Store;

/// The id of the documented sample.
const SAMPLE: &str = "apr-abc123";
/// Why the demo denies by itself.
const REASON: &str = "Not during the sale";
/// How long the story may take that tells itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// A moment for the server's last line: it looks every half a second whether agents know by now.
const MOMENT: Duration = Duration::from_secs(1);

/// Runs until Ctrl-C, or until the story is told that `--auto` asks for.
///
/// # Errors
/// The options are wrong; the directory, a port or the system's threads cannot be had; or the story
/// does not come to its end.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let port = match text(parsed, "--port")? {
        Some(port) => port
            .parse()
            .map_err(|_| Complaint::usage(format!("--port {port} is not a port, 0 to 65535")))?,
        None => 0,
    };
    let auto = text(parsed, "--auto")?;
    let auto = auto.and_then(|word| {
        let mut choices = [Choice::Approve, Choice::Deny].into_iter();
        choices.find(|choice| choice.word() == word)
    });
    let slack = StandIn::on(port).map_err(|error| {
        let what = format!("cannot listen on 127.0.0.1 port {port}: {}", reason(&error));
        Complaint::failure(what).hint("--port takes another port, 0 any free one")
    })?;
    if parsed.flag("--preview") {
        return preview(&slack);
    }
    let place = match parsed.value("--dir") {
        Some(dir) => Place::at(dir.as_ref()),
        None => Place::temporary(&config::temporary_dir(environment)),
    };
    let place = place.map_err(|error| {
        if let Some(dir) = parsed.value("--dir")
            && error.kind() == ErrorKind::AlreadyExists
        {
            let dir = Path::new(dir).display();
            return Complaint::failure(format!("{dir} has a .runbook that is not the demo's"))
                .hint("--dir names a directory for demos alone");
        }
        let what = format!("cannot make the demo's directory: {}", reason(&error));
        Complaint::failure(what).hint("--dir or TMPDIR names another")
    })?;
    let stage = Arc::new(Stage::set(parsed, &place, slack)?);
    let server = stage.command("webhook", &["--host", "127.0.0.1", "--port", "0"])?;
    let mut printed = Ok(());
    let end = webhook::serve(&server, &stage.environment, &mut |ready| {
        let banner = webhook::banner(ready.port, &ready.public_url);
        // Before its address is known, for who reads it may be quicker than we are.
        stage.install(ready.port, ready.happened.clone());
        printed = print(&(banner + &stage.welcome(auto)));
        if printed.is_err() {
            // Its other end is the server.
            let _ = ready.happened.send(Event::Stop);
            return;
        }
        stage.begin(auto, ready.happened);
    });
    stage.over.store(true, Ordering::Relaxed);
    let end = end?;
    printed?;
    if auto.is_some() && !stage.told.load(Ordering::Acquire) {
        return Err(Complaint::failure("the story did not come to its end")
            .hint("the log says what happened"));
    }
    Ok(end)
}

/// Shows samples until Ctrl-C; there is no server.
fn preview(slack: &StandIn) -> Result<Exit, Complaint> {
    slack.preview();
    let cannot = |error| Complaint::failure(format!("cannot hear signals: {}", reason(&error)));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    print(&format!(
        "Every message, in every state: {}\nCtrl-C ends it.\n",
        slack.page()
    ))?;
    signals.forever().next();
    Ok(Exit::Done)
}

/// All that the demo's threads share.
struct Stage {
    slack: StandIn,
    pending_dir: PathBuf,
    /// The configuration: the demo's own, or the one that was named.
    config: PathBuf,
    /// What the server and the agent find in their environment: nothing of this process's own.
    environment: Environment,
    secret: SigningSecret,
    /// Whether the demo ends: its agents may find their requests gone.
    over: AtomicBool,
    /// Whether the story that tells itself came to its end.
    told: AtomicBool,
}

impl Stage {
    fn set(parsed: &Parsed, place: &Place, slack: StandIn) -> Result<Self, Complaint> {
        let own = place.config();
        configure(&own, true)?;
        let config = if let Some(named) = parsed.value("--config") {
            named.into()
        } else {
            slack.offer_policy(true);
            own
        };
        let random = |count| {
            let made = random::letters(count);
            made.map_err(|error| {
                Complaint::failure(format!("cannot get random bytes: {}", reason(&error)))
            })
        };
        let (secret, token) = (random(32)?, format!("xoxb-demo-{}", random(26)?));
        slack.set_token(&token);
        let temporary = place.dir().to_string_lossy().into_owned();
        let variables = [
            ("SLACK_SIGNING_SECRET", &*secret),
            ("SLACK_BOT_TOKEN", &token),
            ("SLACK_API_URL", &slack.url()),
            ("SLACK_DEFAULT_CHANNEL", CHANNEL),
            ("TMPDIR", &temporary),
        ];
        let secret = SigningSecret::new(&secret).ok_or(Complaint::failure("no secret"))?;
        Ok(Self {
            environment: variables
                .into_iter()
                .collect::<Environment>()
                .keeping_audit(),
            slack,
            pending_dir: place.pending_dir(),
            config,
            secret,
            over: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    /// A command line of ours, as an operator would type it in the demo's directory.
    fn command(&self, name: &str, words: &[&str]) -> Result<Parsed, Complaint> {
        let mut line: Vec<OsString> = vec![name.into()];
        line.extend(words.iter().map(OsString::from));
        line.extend(["--pending-dir".into(), self.pending_dir.clone().into()]);
        line.extend(["--config".into(), self.config.clone().into()]);
        match cli::parse(line)? {
            Request::Run(parsed) => Ok(parsed),
            Request::Print(text) => Err(Complaint::failure(text)),
        }
    }

    /// What the operator sees below the server's banner.
    fn welcome(&self, auto: Option<Choice>) -> String {
        let where_to = match auto {
            None => "Open it in a browser, click, and watch this terminal. Ctrl-C ends the demo.",
            Some(_) => "The demo clicks by itself.",
        };
        format!(
            "\nSlack is played here: {}\n{where_to}\nThe requests are files: {}\n\n",
            self.slack.page(),
            self.pending_dir.display()
        )
    }

    /// Makes the server at this port the app's own.
    fn install(self: &Arc<Self>, port: u16, server: Sender<Event>) {
        let app = App {
            server: format!("http://127.0.0.1:{port}"),
            secret: self.secret.clone(),
        };
        let stage = Arc::clone(self);
        let grant = Box::new(move |wish| stage.fulfil(wish, &server));
        self.slack.install(app, grant);
    }

    /// Has the agent ask, and tells the story.
    fn begin(self: &Arc<Self>, auto: Option<Choice>, server: Sender<Event>) {
        self.fulfil(Wish::Ask(Risk::High), &server);
        let teller = Arc::clone(self);
        warn_of(aside(Box::new(move || {
            teller.tell(auto);
            if auto.is_some() {
                // Its other end is the server.
                let _ = server.send(Event::Stop);
            }
        })));
    }

    /// Does what somebody wants; each request has an agent of its own.
    fn fulfil(self: &Arc<Self>, wish: Wish, server: &Sender<Event>) {
        match wish {
            Wish::SayWhy(say_why) => match configure(&self.config, say_why) {
                // The server reads it anew, as after HUP.
                Ok(()) => drop(server.send(Event::Reload)),
                Err(complaint) => log::warn!("{}", complaint.what()),
            },
            Wish::Ask(risk) => {
                let stage = Arc::clone(self);
                warn_of(aside(Box::new(move || match stage.ask(risk) {
                    Err(complaint) if !stage.over.load(Ordering::Relaxed) => {
                        log::warn!("The agent gave up: {}", complaint.what());
                    }
                    Ok(()) | Err(_) => {}
                })));
            }
        }
    }

    /// Plays the agent, as `runbook request --wait` does it; a server on the directory posts.
    fn ask(&self, risk: Risk) -> Result<(), Complaint> {
        let options = sample(risk);
        let words: Vec<&str> = options
            .iter()
            .flat_map(|(name, value)| [*name, *value])
            .collect();
        let words = [&words[..], &["--no-post"]].concat();
        let parsed = self.command("request", &words)?;
        let office = Office::to_ask(asking(&parsed, &self.environment)?)?;
        let mut fields = Map::new();
        let sample = ApprovalId::parse(SAMPLE);
        let is_free = |id: &ApprovalId| matches!(office.store.read(id), Ok(None));
        if let Some(id) = sample.filter(|id| risk == Risk::High && is_free(id)) {
            fields.insert("id".into(), id.as_str().into());
        }
        let approval = request::compose(&parsed, &office.settings, &mut fields)?;
        let id = approval.id().clone();
        print(&format!(
            "The agent asks, and waits:\n\n{}\n",
            typed(&options)
        ))?;
        let desk = office.desk();
        request::ask(&parsed, &office, &desk, approval)?;
        let waited = client::wait(&desk, &id, None, &mut |_| ());
        if let Waited::Decided(decided) = waited.map_err(|error| office.complain(&error))? {
            let noted = client::note_agent(&desk, &id);
            noted.map_err(|error| office.complain(&error))?;
            let learnt = outcome(&decided);
            self.slack.note_agent(id.as_str(), &learnt);
            print(&format!("The agent learns: {learnt}\n\n"))?;
        }
        Ok(())
    }

    /// Prints what people see, and clicks by itself if it is to. Ends when Slack does, or when the
    /// story is at its end.
    fn tell(&self, auto: Option<Choice>) {
        let [alice, ..] = PEOPLE;
        let mut seen = 0;
        let limit = auto.map(|_| PATIENCE);
        while let Some(call) = self.slack.call(seen, limit) {
            seen += 1;
            let Some(picture) = story::picture(&call) else {
                continue;
            };
            let _ = print(&format!("{picture}\n"));
            let Some(choice) = auto else {
                continue;
            };
            match call.method.as_str() {
                "chat.postMessage" => self.slack.press(alice, &call, choice.word()),
                "views.open" => self.slack.explain(alice, REASON),
                _ => {
                    if self.slack.agent_learns(PATIENCE) {
                        thread::sleep(MOMENT);
                        self.told.store(true, Ordering::Release);
                    }
                    return;
                }
            }
        }
    }
}

fn warn_of(thread: io::Result<JoinHandle<()>>) {
    if let Err(error) = thread {
        log::warn!("The demo gets no thread: {}", reason(&error));
    }
}

/// Writes the policy that shows the people.
fn configure(config: &Path, say_why: bool) -> Result<(), Complaint> {
    let approvers: Vec<&str> = PEOPLE[..2].iter().map(|person| person.id).collect();
    let yaml = format!(
        "# Made by runbook demo, and made anew by each.\n\
         safety:\n  approvalTimeoutMs: 900000\n  requireDenialReason: {say_why}\n  \
         multiApproverForCritical: true\n  approvers:\n    default:\n      users: [{}]\n",
        approvers.join(", ")
    );
    Place::write(config, &yaml).map_err(|error| {
        Complaint::failure(format!(
            "cannot write the demo's configuration: {}",
            reason(&error)
        ))
    })
}

/// What the agent asks for, by its risk, as options and their values. The high one is the documentation's own.
fn sample(risk: Risk) -> Vec<(&'static str, &'static str)> {
    let what: &[(&str, &str)] = match risk {
        Risk::Low => &[
            ("--operation", "clear_cache"),
            ("--description", "Clear the CDN cache of the shop"),
            ("--arg", "site=shop.example.com"),
        ],
        Risk::Medium => &[
            ("--operation", "restart_service"),
            (
                "--description",
                "Restart search-api, one task after the other",
            ),
            ("--arg", "service=search-api"),
            ("--impact", "searches are slower for a minute"),
        ],
        Risk::High => &[
            ("--operation", "scale_ecs_service"),
            ("--description", "Scale checkout-api (4 → 8 tasks)"),
            ("--arg", "service=checkout-api"),
            ("--arg", "desiredCount=8"),
            ("--rollback", "aws ecs update-service --desired-count 4"),
        ],
        Risk::Critical => &[
            ("--operation", "drop_index"),
            ("--description", "Drop the index orders_by_date"),
            ("--resource", "db-orders-1"),
            (
                "--rollback",
                "CREATE INDEX CONCURRENTLY orders_by_date ON orders (placed_at)",
            ),
        ],
    };
    let whose = [
        ("--risk", risk.word()),
        ("--requested-by", "runbook-agent"),
        ("--investigation", "PD-12345"),
    ];
    [what, &whose].concat()
}

/// The command as one types it, an option a line.
fn typed(options: &[(&str, &str)]) -> String {
    let mut typed = "  $ runbook request --wait".to_owned();
    for (name, value) in options {
        let words = vec![(*name).to_owned(), (*value).to_owned()];
        let quoted = CommandLine::new(words).map(|words| words.to_string());
        typed.extend([" \\\n      ", &quoted.unwrap_or_default()]);
    }
    typed + "\n"
}
