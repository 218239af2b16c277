//! What the commands need to know that ask, look or decide from the terminal.

use super::environment::Environment;
use super::site::site;
use super::sources::{Sources, find_file};
use super::terms::{BOT_TOKEN, Reach, SIGNING_SECRET, terms};
use super::{safety, signing};
use crate::approval::{Risk, VerifyKey};
use crate::cli::Parsed;
use crate::complaint::Complaint;
use crate::effects::Terms;
use crate::store::Site;

/// What the commands need to know that ask, look or decide from the terminal.
#[derive(Debug)]
pub struct ClientSettings {
    pub site: Site,
    /// The key that an approval must be signed by to count.
    pub verify_key: Option<VerifyKey>,
    pub terms: Terms,
    /// The levels that need a human.
    pub require_approval: Vec<Risk>,
    /// What the operator should know, though it stops nothing.
    pub warnings: Vec<String>,
}

/// Settles everything for a command that asks, looks or decides from the terminal.
///
/// # Errors
/// Whatever is wrong in options, environment or file: exit 2.
pub fn client(
    parsed: &Parsed,
    environment: &Environment,
    reach: Reach,
) -> Result<ClientSettings, Complaint> {
    let mut file = find_file(parsed, environment)?;
    let mut unused = vec![SIGNING_SECRET];
    unused.extend(environment.names_token().then_some(BOT_TOKEN));
    let optional: &[&str] = match reach {
        Reach::Serves | Reach::Posts => &[],
        Reach::Updates | Reach::Looks => &[BOT_TOKEN],
    };
    file.expand(environment, &unused, optional)?;
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    let site = site(&sources, reach)?;
    let mut warnings = file.warnings.clone();
    warnings.extend(signing::exposed_sign_key(&sources, reach)?);
    Ok(ClientSettings {
        site,
        verify_key: signing::verify_key(&sources)?,
        terms: terms(&sources, reach)?,
        require_approval: safety::require_approval(&file)?,
        warnings,
    })
}
